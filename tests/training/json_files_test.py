"""JSON files that somebody may have damaged."""

import dataclasses

import pytest

from qgen_tf import errors
from qgen_tf.training import json_files


@dataclasses.dataclass
class _Result:
    name: str
    value: float
    count: int | None


def _told(message):
    return pytest.raises(
        errors.RunDirectoryError, match=rf"^(?!.*\n).*a\.json {message}.*\.$"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is damaged \(Expecting value"),
        (b"[1]", r"is damaged \(it holds list\): delete it and run"),
        (b"null", r"is damaged \(it holds NoneType"),
        (b'{"a": NaN}', r"is damaged \(NaN is no number"),
        (b'{"a": -Infinity}', r"is damaged \(-Infinity is no number"),
        (b"[" * 100_000, r"is damaged \(.*recursion"),
        (b"\xff\xfe{}", r"is damaged \(.*utf-8"),
        (b'{"a": "\\ud800"}', r"is damaged \(.*surrogates not allowed"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"is damaged \(Exceeds the limit"),
    ],
)
def test_what_is_no_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with _told(message):
        json_files.read(path)


@pytest.mark.parametrize("target", [None, "a.json", "/dev/zero", "folder"])
def test_what_is_no_file(tmp_path, target):
    path = tmp_path / "a.json"
    if target == "folder":
        path.mkdir()
    elif target:
        path.symlink_to(target)
    with _told("is missing, or no file: run the stage"):
        json_files.read(path)


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda found: found["b"], "KeyError: 'b'"),
        (lambda found: found["a"]["b"], "TypeError: .*"),
        (lambda found: found["a"].items(), "AttributeError: .*"),
        (lambda found: found["a"][3], "IndexError: .*"),
        (lambda found: [] / found["a"], "TypeError: .*"),
        (lambda found: 10**400 * 1.0, "OverflowError: .*"),
    ],
)
def test_what_is_not_there(tmp_path, look_up, message):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    with (
        _told(rf"is damaged \({message}\): delete it and"),
        json_files.reading(path) as found,
    ):
        look_up(found)


def test_results_have_the_types_of_their_fields():
    content = {"name": "a", "value": 1, "count": None}
    assert json_files.result(_Result, content) == _Result("a", 1, None)
    for wrong in (
        {**content, "value": "1"},
        {**content, "name": None},
        {**content, "count": 1.5},
        {**content, "more": 1},
        {"name": "a"},
        ["a", 1, None],
    ):
        with pytest.raises(ValueError):
            json_files.result(_Result, wrong)
