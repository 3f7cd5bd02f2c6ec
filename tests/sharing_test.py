"""What is found once inside of `shared`, and again outside of it."""

import pathlib

import ml_collections
import pytest

from qgen_tf import sharing
from qgen_tf.measures import average_sharpness, perturbations
from tests.measures import closed_forms


@pytest.fixture
def calls():
    found = []

    @sharing.remembered
    def noted(value, *, factor=2.0):
        found.append(value)
        return [value, factor]

    return found, noted


def test_outside_nothing_is_remembered(calls):
    found, noted = calls
    assert noted(1) == noted(1) == [1, 2.0]
    assert found == [1, 1]


def test_inside_equal_arguments_are_found_once(calls):
    found, noted = calls
    with sharing.shared():
        assert noted(1) is noted(1)
        assert noted(1, factor=3.0) == [1, 3.0]
        assert noted(1, factor=2.0) is noted(1)  # its default
        assert noted(2) == [2, 2.0]
        assert found == [1, 1, 2]
    with sharing.shared():
        noted(1)
    assert found == [1, 1, 2, 1]


def test_one_inside_of_another_knows_what_that_found(calls):
    found, noted = calls
    with sharing.shared():
        noted(1)
        with sharing.shared():
            assert noted(1) is noted(1)
            assert noted(2) is noted(2)
        assert found == [1, 2]
        noted(2)  # which was let go
    assert found == [1, 2, 2]


def test_paths_and_configs_are_told_apart_by_what_they_say(calls):
    found, noted = calls
    with sharing.shared():
        assert noted(pathlib.Path("a")) is noted("a")
        config = ml_collections.ConfigDict({"a": 1, "b": 2})
        same = ml_collections.ConfigDict({"b": 2, "a": 1})
        assert noted(config) is noted(same)
        same.a = 3
        assert noted(config) is not noted(same)
    assert len(found) == 3


def test_objects_are_told_apart_by_identity(calls):
    _, noted = calls
    with sharing.shared():
        # each list is dropped at once: its address must not be taken again
        results = [noted([value]) for value in range(50)]
        assert len({id(result) for result in results}) == 50


def test_measures_share_the_deployed_network(monkeypatch):
    built = []
    original = perturbations.inference_model

    def counting(model):
        built.append(model)
        return original(model)

    monkeypatch.setattr(perturbations, "inference_model", counting)
    network, dataset = closed_forms.network(KERNEL), closed_forms.dataset()
    with sharing.shared():
        first = average_sharpness(network, dataset, num_samples=2)
        again = average_sharpness(network, dataset, num_samples=2)
        wider = average_sharpness(network, dataset, num_samples=2, sigma=0.1)
    assert len(built) == 1
    assert first == again
    assert first.value != wider.value
    assert average_sharpness(network, dataset, num_samples=2) == first
    assert len(built) == 2


KERNEL = closed_forms.IMAGES[:5, :3]
