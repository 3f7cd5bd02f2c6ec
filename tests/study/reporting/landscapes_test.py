"""Landscapes that are kept beside a report."""

import json
import types

import numpy as np
import pytest

from qgen_tf import errors
from qgen_tf.measures.landscape import Landscape
from qgen_tf.study.reporting import landscapes
from tests import tiny


class _Run:
    def __init__(self, path, label):
        self.path, self.label, self.config = path, label, tiny.config()


@pytest.fixture
def taken(monkeypatch):
    """The runs whose landscapes are taken; the losses count them."""
    order = []

    def loss_landscape(model, dataset, *, span, num_points, progress):
        assert len(list(dataset)) == 1  # 200 examples
        order.append(model.name)
        losses = np.full((num_points, num_points), float(len(order)))
        losses[0, 1] = np.inf
        places = np.linspace(-span, span, num_points)
        return Landscape(places, losses, losses / 10.0, {"seed": 0})

    monkeypatch.setattr(landscapes, "loss_landscape", loss_landscape)
    monkeypatch.setattr(
        landscapes,
        "load_model",
        lambda path: types.SimpleNamespace(name=path.name),
    )
    return order


def test_landscapes_are_kept(taken, tmp_path):
    runs = [_Run(tmp_path / name, name) for name in ("float", "w2a8")]
    found = landscapes.take(runs, tmp_path)
    assert taken == ["float", "w2a8"]
    for planes in (
        landscapes.take(runs, tmp_path),
        landscapes.read(tmp_path),
    ):
        assert list(planes) == ["float", "w2a8"]
        for label, plane in planes.items():
            for name in ("coordinates", "losses"):
                assert np.array_equal(
                    getattr(plane, name), getattr(found[label], name)
                )
            assert plane.settings == {"seed": 0}
    assert np.isposinf(planes["float"].losses[0, 1])
    assert taken == ["float", "w2a8"]


def test_other_runs_are_taken_anew(taken, tmp_path):
    landscapes.take([_Run(tmp_path / "a", "float")], tmp_path)
    landscapes.take([_Run(tmp_path / "b", "float")], tmp_path)
    assert taken == ["a", "b"]
    assert landscapes.read(tmp_path)["float"].losses[0, 0] == 2.0


def test_the_file_is_json(taken, tmp_path):
    landscapes.take([_Run(tmp_path / "a", "float")], tmp_path)
    text = (tmp_path / landscapes.FILE).read_text()
    assert "Infinity" not in text and "NaN" not in text
    assert json.loads(text)["landscapes"]["float"]["losses"][0][1] is None


def test_without_a_file_there_is_no_landscape(tmp_path):
    assert landscapes.read(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"runs": []}',
        '{"runs": [], "landscapes": []}',
        '{"runs": [], "landscapes": {"float": {"losses": [1]}}}',
        '{"runs": [], "landscapes": {"float": {"settings": {}, '
        '"coordinates": [0], "losses": "a", "accuracies": [1]}}}',
    ],
)
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / landscapes.FILE).write_text(content)
    with pytest.raises(errors.DataError, match="landscape.json is damaged"):
        landscapes.read(tmp_path)
