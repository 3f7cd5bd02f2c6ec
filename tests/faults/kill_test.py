"""Reruns and kills change no bit; `python -m tests.faults.kill` kills more."""

import random

import pytest

from qgen_tf.study import exporting, measuring
from tests.faults import kill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder of runs, and the processor time of each command."""
    return kill.undisturbed(tmp_path_factory.mktemp("runs") / "undisturbed")


@pytest.mark.full  # what was killed and run again has the same bits, too
def test_a_rerun_gives_the_same_bits(undisturbed, tmp_path):
    workdir, _ = kill.undisturbed(tmp_path / "rerun")
    kill.require_same(undisturbed[0], workdir)


def test_a_kill_of_each_command_changes_nothing(undisturbed, tmp_path):
    workdir, seconds = undisturbed
    found = kill.disturbed(
        tmp_path / "disturbed",
        dict.fromkeys(kill.STAGES, 1),
        seconds,
        random.Random(0),
    )
    kill.require_same(workdir, found)
    (twin,) = found.glob("*-w4a8-*")
    for name in (
        "initial.weights.h5",
        "final.weights.h5",
        measuring.MEASURES_FILE,
        exporting.MODEL_FILE,
    ):
        assert f"{twin.name}/{name}" in kill.results(found)
