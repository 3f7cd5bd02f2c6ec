"""Jobs run in processes of their own, after what they need."""

import pytest

from qgen_tf import errors
from qgen_tf.study import scheduler
from qgen_tf.study.scheduler import Job, Resources
from tests.study import jobs


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with scheduler.cluster(Resources()):
        yield


def _run(folder, fates, after=None, **settings):
    """Runs a job for each fate; returns state and log, split into words."""
    after = after or {}
    state = scheduler.run(
        [
            Job(name, (str(folder), name, fate), after.get(name))
            for name, fate in fates.items()
        ],
        jobs.note,
        Resources(),
        **settings,
    )
    return state, [
        line.split() for line in (folder / "log").read_text().splitlines()
    ]


def test_jobs_come_after_the_one_they_need(tmp_path):
    after = {"a1": "a", "a2": "a", "b1": "b"}
    fates = dict.fromkeys(["a", "a1", "a2", "b", "b1"])
    state, log = _run(tmp_path, fates, after)
    assert state.done == set(fates)
    assert not state.failed and state.running == 0
    events = [(what, name) for what, name, _ in log]
    assert len(events) == 10
    for child, parent in after.items():
        assert events.index(("end", parent)) < events.index(("start", child))


def test_each_job_has_a_process_of_its_own(tmp_path):
    fates = dict.fromkeys(["a", "b", "c"])
    _, log = _run(tmp_path, fates)
    assert len({process for _, _, process in log}) == 3


def test_a_failed_job_takes_those_that_need_it_along(tmp_path):
    fates = {"a": "no data", "a1": None, "b": None, "c": "raise"}
    state, log = _run(tmp_path, fates, {"a1": "a"})
    assert state.done == {"b"}
    assert state.failed["a"] == "no data"
    assert state.failed["a1"] == "a, which it needs, failed"
    assert "a bug" in state.failed["c"]
    assert "a1" not in {name for _, name, _ in log}


def test_a_process_that_is_killed_is_started_again(tmp_path):
    state, log = _run(tmp_path, {"a": "crash once", "b": None})
    assert state.done == {"a", "b"}
    assert [what for what, name, _ in log if name == "a"] == [
        *("start", "end"),
        *("start", "end"),
    ]


def test_a_process_that_always_dies_is_a_failure(tmp_path):
    state, log = _run(tmp_path, {"a": "crash", "b": None})
    assert state.done == {"b"}
    assert state.crashed == {"a"}
    assert "its process ended, 3 times" in state.failed["a"]
    assert [name for _, name, _ in log].count("a") == 3


def test_whoever_watches_sees_how_far_it_is(tmp_path):
    seen = []
    _run(
        tmp_path,
        dict.fromkeys("abc"),
        fresh_process=False,
        on_change=lambda state: seen.append((len(state.done), state.running)),
    )
    done = [number for number, _ in seen]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 3
    assert seen[0][1] >= 1 and seen[-1][1] == 0


@pytest.mark.parametrize(
    "settings", [{"cpus": 0}, {"gpus": -1.0}, {"gpus": float("inf")}]
)
def test_resources_must_be_there(settings):
    with pytest.raises(errors.ConfigError, match="a trial cannot have"):
        Resources(**settings)
