"""Training on several replicas is training on one device."""

import hashlib
import json
import pathlib
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from qgen_tf import training
from qgen_tf.study import exporting, measuring
from qgen_tf.training import replicas, strategies
from tests.training import distributed, workers

pytestmark = pytest.mark.slow
PROGRAM = "tests.training.distributed"


def _batches(*sizes):
    images = np.arange(sum(sizes), dtype=np.float32)
    starts = np.cumsum([0, *sizes])
    return tf.data.Dataset.from_generator(
        lambda: (
            (images[a:b, None], 10 * images[a:b].astype(np.int64))
            for a, b in zip(starts, starts[1:], strict=False)
        ),
        output_signature=(
            tf.TensorSpec([None, 1], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ),
    )


def test_batches_are_filled_up_with_examples_of_no_weight(monkeypatch):
    monkeypatch.setattr(strategies, "num_replicas", lambda: 3)
    dataset = replicas.even_batches(_batches(5, 5, 1), 5)
    assert [spec.shape[0] for spec in dataset.element_spec] == [6, 6, 6]
    found = [[tensor.numpy().tolist() for tensor in batch] for batch in dataset]
    ones = [1.0] * 5 + [0.0]
    assert found == [
        [[[0], [1], [2], [3], [4], [0]], [0, 10, 20, 30, 40, 0], ones],
        [[[5], [6], [7], [8], [9], [5]], [50, 60, 70, 80, 90, 50], ones],
        [[[10]] * 6, [100] * 6, [1.0] + [0.0] * 5],
    ]


def test_batches_that_replicas_share_evenly_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(strategies, "num_replicas", lambda: 2)
    (batch,) = replicas.even_batches(_batches(4), 4)
    assert [tensor.numpy().tolist() for tensor in batch] == [
        [[0], [1], [2], [3]],
        [0, 10, 20, 30],
        [1.0] * 4,
    ]


def _mirrored(workdir, quantizer, policy, *, gpus=False):
    """Trains on one device and on two of this machine; returns the facts."""
    processes = workers.start(
        None, PROGRAM, workdir, "mirrored", quantizer, policy, gpus=gpus
    )
    return json.loads(workers.finish(processes)[0])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("mirrored")


@pytest.fixture(scope="module")
def mirrored(workdir):
    return _mirrored(workdir, "lsq_plus", "float32")


def _histories(workdir):
    """Returns label of a run -> its history."""
    return {
        path.parent.name.split("-")[1]: pd.read_csv(path)
        for path in pathlib.Path(workdir).glob("tiny-*/history.csv")
    }


def _assert_same_histories(one, more, *, rtol):
    one, more = _histories(one), _histories(more)
    assert one.keys() == more.keys() == {"float", "w4a8"}
    for label, history in one.items():
        pd.testing.assert_frame_equal(more[label], history, rtol=rtol)
        assert len(history) == 3
        assert {"loss", "accuracy", "train_loss"} < {*history.columns}


def _assert_one_model(facts):
    """All replicas have one model, its grids moved, and its file is the run's.

    The run's file is made here, on one device.
    """
    run = pathlib.Path(facts["run"])
    assert len(set(facts["replicas"])) == 1
    assert max(facts["moved"]) > 1e-3
    file = exporting.export(run).read_bytes()
    assert facts["file"] == hashlib.sha256(file).hexdigest()


def _assert_measures_are_those_of_one_device(run):
    """Compares what a run holds with what is measured here."""
    run = training.RunDirectory(run)
    of_replicas = run.read_json(measuring.MEASURES_FILE)
    (run.path / measuring.MEASURES_FILE).unlink()
    settings = distributed.config().measures
    here = measuring.measure(run.path, settings)
    assert here["measures"].keys() == {*settings.names}
    for name, result in here["measures"].items():
        assert of_replicas["measures"][name]["value"] == pytest.approx(
            result["value"], rel=1e-3, abs=1e-7
        )
    for split in ("train", "test"):
        assert of_replicas[split] == pytest.approx(here[split], rel=1e-6)
    for kind in ("loss", "accuracy"):
        assert of_replicas["gap"][kind] == pytest.approx(
            here["gap"][kind], rel=1e-5, abs=1e-6
        )


def test_two_devices_train_as_one(workdir, mirrored):
    assert mirrored["num_replicas"] == 2
    _assert_same_histories(workdir / "one", workdir / "more", rtol=1e-5)
    # the strategy is no part of the name
    names = [
        {path.name for path in (workdir / each).iterdir()}
        for each in ("one", "more")
    ]
    assert names[0] == names[1]


def test_two_devices_hold_one_model(mirrored):
    _assert_one_model(mirrored)


def test_two_devices_measure_as_one(mirrored):
    _assert_measures_are_those_of_one_device(mirrored["run"])


@pytest.mark.full
def test_two_devices_train_in_float16_what_one_does(tmp_path):
    facts = _mirrored(tmp_path, "minmax", "mixed_float16")
    _assert_one_model(facts)
    # float16 has 11 bits: the order of a sum is seen in the fourth digit
    _assert_same_histories(tmp_path / "one", tmp_path / "more", rtol=5e-3)


@pytest.mark.gpu
def test_all_gpus_train_as_one(tmp_path):
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        pytest.skip("there is no GPU here")
    facts = _mirrored(tmp_path, "lsq_plus", "float32", gpus=True)
    assert facts["num_replicas"] == len(gpus)
    _assert_one_model(facts)
    _assert_same_histories(tmp_path / "one", tmp_path / "more", rtol=1e-4)


@pytest.fixture
def note(tmp_path):
    """A lab note with the config of `distributed`."""
    path = tmp_path / "note.py"
    path.write_text(
        "from tests.training import distributed\n\n"
        "get_config = distributed.config\n"
    )
    return path


def _with_float_run(workdir, target):
    """Copies the float model of one device, which need not be trained again."""
    (run,) = (workdir / "one").glob("tiny-float-*")
    shutil.copytree(run, target / run.name)
    return target


def _wait_for(pattern, workdir, processes):
    while not list(workdir.glob(pattern)):
        for process in processes:
            assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)


@pytest.mark.full
def test_workers_go_on_after_one_was_killed(
    workdir, mirrored, note, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of what the killed one leaves
    runs = _with_float_run(workdir, tmp_path / "runs")

    def start():
        return workers.start(
            2,
            "qgen_tf.cli.train",
            f"--config={note}",
            f"--workdir={runs}",
            "--strategy=multi_worker_mirrored",
        )

    chief, killed = start()
    _wait_for("*/backup/checkpoint", runs, [chief, killed])
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    _, message = chief.communicate(timeout=300)
    assert chief.returncode == 2, message[-3000:]
    assert "another worker has ended" in message
    (run,) = runs.glob("tiny-w4a8-*")
    assert not (run / training.TRAINED_FILE).exists()
    assert (run / "backup").exists()

    printed = workers.finish(start())
    assert printed == [str(run), str(run)]
    _assert_same_histories(workdir / "one", runs, rtol=1e-5)
    # the other worker left nothing
    assert {path.name for path in run.iterdir()} == {
        path.name for path in (workdir / "one" / run.name).iterdir()
    }


@pytest.mark.full
def test_three_workers_train_as_one_device(workdir, mirrored, tmp_path):
    processes = workers.start(
        3, PROGRAM, tmp_path, "multi_worker_mirrored", "lsq_plus", "float32"
    )
    facts = [json.loads(line) for line in workers.finish(processes)]
    assert [each["num_replicas"] for each in facts] == [3, 3, 3]
    assert (
        len({*(digest for each in facts for digest in each["replicas"])}) == 1
    )
    assert len({each["file"] for each in facts}) == 1
    _assert_one_model(facts[0])
    _assert_same_histories(workdir / "one", tmp_path / "more", rtol=1e-5)
    _assert_measures_are_those_of_one_device(facts[0]["run"])
