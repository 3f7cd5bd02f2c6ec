"""What TensorBoard reads of records."""

import math

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.plugins.hparams import plugin_data_pb2

from qgen_tf import errors
from qgen_tf.study import hparams, schema
from tests.study.reporting import report_records


def _events(folder):
    """Returns the scalars in a folder by tag, and HParams' own data by tag."""
    (path,) = folder.glob("*tfevents*")
    scalars, plugin = {}, {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            data = value.metadata.plugin_data
            if data.plugin_name == "hparams":
                plugin[value.tag] = (
                    plugin_data_pb2.HParamsPluginData.FromString(data.content)
                )
            else:
                scalars[value.tag] = float(tf.make_ndarray(value.tensor))
    return scalars, plugin


@pytest.fixture
def frame():
    return schema.fit(report_records.records(num_floats=3))


def test_the_events_are_the_records(frame, tmp_path):
    frame.loc[0, "pac_bayes_sigma"] = np.inf
    path = hparams.write(frame, tmp_path)
    assert path == tmp_path / "hparams"
    assert {p.name for p in path.iterdir() if p.is_dir()} == set(frame["run"])
    for row in frame.to_dict("records"):
        scalars, plugin = _events(path / row["run"])
        for name in ("gap", "file_gap", "test_accuracy", "train_loss"):
            assert scalars[name] == pytest.approx(row[name], rel=1e-6)
        assert ("pac_bayes_sigma" in scalars) == math.isfinite(
            row["pac_bayes_sigma"]
        )
        (start,) = plugin.values()
        values = start.session_start_info.hparams
        assert values["bits"].string_value == row["bits"]
        assert values["learning_rate"].number_value == row["learning_rate"]
        assert "depth" not in values  # the same in all of them


def test_the_experiment_says_what_is_varied(frame, tmp_path):
    _, plugin = _events(hparams.write(frame, tmp_path))
    (experiment,) = [data.experiment for data in plugin.values()]
    domains = {
        info.name: list(info.domain_discrete)
        for info in experiment.hparam_infos
    }
    assert set(domains["bits"]) == set(frame["bits"])
    rates = sorted(frame["learning_rate"].unique())
    assert domains["learning_rate"] == rates
    (gap,) = [m for m in experiment.metric_infos if m.name.tag == "gap"]
    assert gap.description.endswith("[points]")
    tags = {metric.name.tag for metric in experiment.metric_infos}
    assert {"average_sharpness", "file_gap", "test_loss"} <= tags


def test_of_one_model_there_are_bits(frame, tmp_path):
    path = hparams.write(frame.head(1), tmp_path)
    _, plugin = _events(path / frame["run"][0])
    (start,) = plugin.values()
    assert list(start.session_start_info.hparams) == ["bits"]


def test_what_was_there_is_replaced(frame, tmp_path):
    hparams.write(frame, tmp_path)
    hparams.write(frame.tail(1), tmp_path)
    folders = [p for p in (tmp_path / "hparams").iterdir() if p.is_dir()]
    assert [folder.name for folder in folders] == [frame["run"].iloc[-1]]
    assert [path.name for path in tmp_path.iterdir()] == ["hparams"]


def test_records_without_bits(tmp_path):
    with pytest.raises(errors.DataError, match="no column 'bits'"):
        hparams.write(pd.DataFrame({"run": ["a"]}), tmp_path)
