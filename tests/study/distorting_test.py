"""Corrupted test sets of a run: evaluated once, and shared by all runs."""

import concurrent.futures
import hashlib
import json
import shutil
import time

import pytest

from export.interpreter import Interpreter
from qgen_tf import data, errors, measures, training
from qgen_tf.data import corrupted_sets
from qgen_tf.study import distorting, exporting
from qgen_tf.training import RunDirectory
from tests import tiny

_KINDS = ("gaussian_noise", "contrast")
_SEVERITIES = (1, 4)


def _settings(**fields):
    settings = tiny.config().corruptions
    settings.update({"kinds": _KINDS, "severities": _SEVERITIES, **fields})
    return settings


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """Returns a run of 4 bits, to be copied."""
    return tiny.copies(tmp_path_factory.mktemp("runs"))[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "corrupted"


@pytest.fixture(scope="module")
def distorted(verified, cache, tmp_path_factory):
    """Returns a copy that is distorted, and the record."""
    run = _copy(verified, tmp_path_factory.mktemp("distorted"))
    return run, distorting.distort(run.path, _settings(), cache)


@pytest.fixture
def evaluated(monkeypatch):
    """Returns a list that grows with each set that is evaluated."""
    seen = []
    results = distorting._results

    def counted(records, *arguments):
        seen.append(len(records))
        return results(records, *arguments)

    monkeypatch.setattr(distorting, "_results", counted)
    return seen


def _copy(run, folder):
    return RunDirectory(shutil.copytree(run.path, folder / run.path.name))


def _pairs(record):
    return [(row["kind"], row["severity"]) for row in record["sets"]]


def test_a_record_says_what_was_done(distorted):
    run, record = distorted
    assert record == run.read_json("corruptions.json")
    assert record["settings"] == json.loads(_settings().to_json())
    content = (run.path / exporting.MODEL_FILE).read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert _pairs(record) == [
        ("gaussian_noise", 1),
        ("gaussian_noise", 4),
        ("contrast", 1),
        ("contrast", 4),
    ]
    for row in record["sets"]:
        assert row["source"] == "made"
        assert row["num_examples"] == 100
    assert distorting.is_distorted(run.path, _settings())


def test_model_and_file_see_what_the_corrupted_test_set_holds(distorted):
    run, record = distorted
    splits = data.load(run.config.dataset)
    predict = measures.predictor(training.load_model(run.path))
    content = (run.path / exporting.MODEL_FILE).read_bytes()
    interpreter = Interpreter(content)
    for row in record["sets"]:
        dataset = splits.corrupted_test(
            row["kind"], severity=row["severity"]
        ).batch(100)
        model, file = (
            measures.evaluate(side, dataset)
            for side in (predict, interpreter.predict)
        )
        assert row["accuracy"] == model.accuracy
        assert row["file_accuracy"] == file.accuracy
        assert row["loss"] == pytest.approx(model.loss, rel=1e-6)
        assert row["file_loss"] == pytest.approx(file.loss, rel=1e-6)
    losses = [row["loss"] for row in record["sets"]]
    assert len(set(losses)) == len(losses)


def test_nothing_is_evaluated_again(distorted, cache, evaluated):
    run, record = distorted
    before = (run.path / "corruptions.json").stat().st_mtime_ns
    assert distorting.distort(run.path, _settings(), cache) == record
    fewer = _settings(kinds=_KINDS[:1], severities=(4, 4))
    assert distorting.is_distorted(run.path, fewer)
    assert distorting.distort(run.path, fewer, cache)["sets"] == record["sets"]
    assert (run.path / "corruptions.json").stat().st_mtime_ns == before
    assert evaluated == []


def test_another_kind_is_added(distorted, cache, tmp_path, evaluated):
    run, record = distorted
    run = _copy(run, tmp_path)
    more = _settings(kinds=("pixelate", *_KINDS), severities=(1,))
    assert not distorting.is_distorted(run.path, more)
    found = distorting.distort(run.path, more, cache)
    assert len(evaluated) == 1
    assert found["sets"][:4] == record["sets"]
    assert _pairs(found)[4:] == [("pixelate", 1)]
    assert distorting.is_distorted(run.path, more)
    assert distorting.is_distorted(run.path, _settings())
    assert run.read_json("corruptions.json") == found


@pytest.mark.parametrize(
    ("fields", "size"), [({"num_examples": 40}, 40), ({"seed": 1}, 100)]
)
def test_other_images_are_evaluated_anew(
    distorted, cache, tmp_path, fields, size
):
    run, record = distorted
    run = _copy(run, tmp_path)
    other = _settings(kinds=_KINDS[:1], **fields)
    assert not distorting.is_distorted(run.path, other)
    found = distorting.distort(run.path, other, cache)
    assert _pairs(found) == _pairs(record)[:2]
    for row, old in zip(found["sets"], record["sets"][:2], strict=True):
        assert row["num_examples"] == size
        assert row["loss"] != old["loss"]


def test_another_file_is_evaluated_anew(distorted, cache, tmp_path, evaluated):
    run, record = distorted
    run = _copy(run, tmp_path)
    stale = run.read_json("corruptions.json")
    stale["sha256"] = "0" * 64
    run.write_json("corruptions.json", stale)
    assert not distorting.is_distorted(run.path, _settings())
    assert distorting.distort(run.path, _settings(), cache) == record
    assert len(evaluated) == 4
    (run.path / exporting.MODEL_FILE).unlink()
    assert not distorting.is_distorted(run.path, _settings())


def test_a_killed_run_goes_on(
    verified, distorted, cache, tmp_path, monkeypatch, evaluated
):
    _, record = distorted
    run = _copy(verified, tmp_path)
    read, names = corrupted_sets.read, []

    def killed(path):
        names.append(path.name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(corrupted_sets, "read", killed)
        distorting.distort(run.path, _settings(), cache)
    partial = run.read_json("corruptions.json")
    assert partial["sets"] == record["sets"][:2]
    assert not distorting.is_distorted(run.path, _settings())
    assert distorting.distort(run.path, _settings(), cache) == record
    assert len(evaluated) == 4


def test_model_and_file_are_loaded_once_and_the_data_not_at_all(
    verified, distorted, cache, tmp_path, monkeypatch
):
    loads = []

    def counted(name, function):
        def call(*args, **kwargs):
            loads.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(data, "load", None)  # must not be called
    monkeypatch.setattr(
        measures, "predictor", counted("model", measures.predictor)
    )
    monkeypatch.setattr(distorting, "Interpreter", counted("file", Interpreter))
    run = _copy(verified, tmp_path)
    found = distorting.distort(run.path, _settings(), cache)
    assert found == distorted[1]
    assert loads == ["model", "file"]


def test_a_damaged_set_is_made_anew(verified, distorted, cache, tmp_path):
    whole = {path: path.read_bytes() for path in cache.glob("*.npy")}
    assert len(whole) >= 4
    for path, content in whole.items():
        path.write_bytes(content[:-10])
    run = _copy(verified, tmp_path)
    assert distorting.distort(run.path, _settings(), cache) == distorted[1]
    asked_for = [path for path in whole if path.name.startswith(_KINDS)]
    repaired = [p for p in asked_for if p.read_bytes() == whole[p]]
    assert len(repaired) == 4
    for path, content in whole.items():
        path.write_bytes(content)


def test_a_set_that_two_want_at_the_same_time_is_made_once(
    tmp_path, monkeypatch
):
    made, write = [], corrupted_sets.write

    def slow(part, path):
        made.append(path)
        time.sleep(0.3)
        write(part, path)

    monkeypatch.setattr(corrupted_sets, "write", slow)
    dataset = tiny.config().dataset
    wanted = corrupted_sets.CorruptedSet.of(dataset, "contrast", 2)
    path = tmp_path / "cache" / wanted.file_name
    test = data.load(dataset).test_examples
    with concurrent.futures.ThreadPoolExecutor() as pool:
        one, other = pool.map(
            lambda _: distorting._records(path, wanted, lambda: test), range(2)
        )
    assert len(made) == 1
    assert len(one) == 100 and (one == other).all()


def test_without_kinds_there_is_nothing_to_do(tmp_path):
    run = RunDirectory.create(tmp_path, tiny.config())  # not even trained
    before = sorted(run.path.iterdir())
    assert distorting.is_distorted(run.path, _settings(kinds=()))
    assert (
        distorting.distort(run.path, _settings(kinds=()), tmp_path / "cache")
        == {}
    )
    assert sorted(run.path.iterdir()) == before
    assert not (tmp_path / "cache").exists()


def test_a_run_without_a_verified_file(verified, tmp_path):
    fresh = RunDirectory.create(tmp_path / "fresh", tiny.config())
    with pytest.raises(errors.RunDirectoryError, match="is not trained"):
        distorting.distort(fresh.path, _settings(), tmp_path)
    run = _copy(verified, tmp_path)
    file = run.path / exporting.MODEL_FILE
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(errors.RunDirectoryError, match="run qgen-export first"):
        distorting.distort(run.path, _settings(), tmp_path)
    file.unlink()
    with pytest.raises(errors.RunDirectoryError, match="run qgen-export first"):
        distorting.distort(run.path, _settings(), tmp_path)
    assert not (run.path / "corruptions.json").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ("contrast", "rain")}, "'rain' is unknown: choose one of"),
        ({"severities": (1, 6)}, "severity is 6"),
        ({"severities": ()}, "corruptions.severities is empty"),
        ({"num_examples": -1}, "corruptions.num_examples is -1"),
        ({"seed": -1}, "corruptions.seed is -1"),
    ],
)
def test_mistakes(verified, tmp_path, fields, message):
    dataset = tiny.config().dataset
    distorting.check(_settings(), dataset)
    distorting.check(_settings(kinds=()), dataset)
    with pytest.raises(errors.ConfigError, match=message):
        distorting.check(_settings(**fields), dataset)
    if _settings(**fields).severities:
        run = _copy(verified, tmp_path)
        with pytest.raises(errors.ConfigError, match=message):
            distorting.distort(run.path, _settings(**fields), tmp_path)
        assert not (run.path / "corruptions.json").exists()
