"""What is done a thousand times takes no more than what is done once."""

import gc
import shutil
import threading

import psutil
import pytest
import tensorflow as tf
from scipy import stats

from export import tflite
from export.interpreter import Interpreter
from qgen_tf import measures
from qgen_tf.quantization import inference_model
from qgen_tf.study import exporting, measuring
from tests import forks, harness

# bytes that one evaluation may leave; a batch of images is 64 KiB
_SLOPE = 4096


def _model():
    model = harness.randomize_norms(harness.residual())
    images, labels = harness.digits()
    dataset = tf.data.Dataset.from_tensor_slices((images[:512], labels[:512]))
    return model, dataset.batch(256)


def _of_a_model():
    model, dataset = _model()
    predict = measures.predictor(model)
    return lambda: measures.evaluate(predict, dataset)


def _of_a_file():
    model, dataset = _model()
    runtime = Interpreter(tflite.convert(inference_model(model)))
    return lambda: measures.evaluate(runtime, dataset)


def _repeat(build, count):
    """Raises if each of so many evaluations leaves something."""
    evaluate = build()
    process = psutil.Process()
    sizes = []
    for number in range(count + 50):
        evaluate()
        gc.collect(1)  # or else garbage waits for a time of its own
        if number >= 50:  # until then, pools fill
            sizes.append(process.memory_info().rss)
    # the median over pairs: a pool that fills late is a step, not a slope
    slope = stats.theilslopes(sizes).slope
    assert slope < _SLOPE, sizes[:: count // 10]


@pytest.mark.parametrize(
    "count", [200, pytest.param(1000, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("build", [_of_a_model, _of_a_file])
def test_memory_does_not_grow(build, count):
    # a process in which nothing else is freed meanwhile
    process = forks.run(_repeat, build, count)
    assert process.returncode == 0, process.stderr


def test_stages_end_what_they_start(config, done, tmp_path):
    path = tmp_path / done.path.name
    shutil.copytree(done.path, path)
    settings = config.measures.copy_and_resolve_references()
    settings.num_examples = 16
    threads = threading.active_count()
    children = psutil.Process().children(recursive=True)
    measuring.measure(path, settings)
    # the file that is there is tried in a child process first
    exporting.verify(path, exporting.Settings(kernels="builtin"))
    assert psutil.Process().children(recursive=True) == children
    assert threading.active_count() <= threads
