import functools
import gc
import os
import threading
import time
import tracemalloc
from concurrent import futures

import numpy as np
import psutil
import pytest
import tensorflow as tf

from export import tflite
from export.interpreter import Interpreter
from export.lane import Lane
from export.model_file import pack, parse
from qgen_tf import errors, measures
from qgen_tf.compat import keras
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness
from tests.export import files

layers = keras.layers


@functools.cache
def _network(scheme):
    model = harness.randomize_norms(harness.residual())
    return files.deployed(model, scheme) if scheme else inference_model(model)


@functools.cache
def _file(scheme, **settings):
    return tflite.convert(_network(scheme), **settings)


@functools.cache
def _converted(function, *shapes, ends=(tf.float32, tf.float32)):
    """Returns the file of a function of float tensors.

    Args:
      function: of tensors.
      *shapes: of its arguments.
      ends: types of input and output; its values are fake-quantized if they
        are integers.
    """
    concrete = tf.function(function).get_concrete_function(
        *(tf.TensorSpec(shape, tf.float32) for shape in shapes)
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [concrete], tf.Module()
    )
    if ends != (tf.float32, tf.float32):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type, converter.inference_output_type = ends
    return converter.convert()


@pytest.mark.parametrize("scheme", [None, BitScheme(4, 8)])
def test_batches_and_padding_do_not_matter(scheme):
    images = harness.test_images()[:100]
    one = Interpreter(_file(scheme), batch_size=1)
    wanted = one.predict(images)
    assert wanted.shape == (100, 10) and wanted.dtype == np.float32
    for batch_size in (7, 64, 200):
        runtime = Interpreter(_file(scheme), batch_size=batch_size)
        for count in (100, 1, 65):
            found = runtime.predict(images[:count])
            np.testing.assert_allclose(
                found, wanted[:count], atol=1e-4 if scheme is None else 0
            )


def test_order_and_threads_do_not_matter():
    images = harness.test_images()[:100]
    one = Interpreter(_file(BitScheme(4, 8)), num_threads=1)
    two = Interpreter(_file(BitScheme(4, 8)), num_threads=2)
    wanted = one.predict(images)
    np.testing.assert_array_equal(two.predict(images), wanted)
    np.testing.assert_array_equal(one.predict(images[::-1]), wanted[::-1])


def test_calls_from_many_threads():
    images = harness.test_images()[:90]
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=8, num_threads=3)
    wanted = runtime.predict(images)
    counts = [90, 1, 17, 50, 5, 90]  # which the lanes are resized for
    with futures.ThreadPoolExecutor(6) as threads:
        found = threads.map(
            lambda count: runtime.predict(images[:count]), counts
        )
        for count, logits in zip(counts, found, strict=True):
            np.testing.assert_array_equal(logits, wanted[:count])


@pytest.mark.parametrize(
    ("num_threads", "copies"), [(1, 1), (6, 6), (8, 8), (16, 8), (18, 6)]
)
def test_copies_for_threads(num_threads, copies, monkeypatch):
    made = []

    def lane(*arguments, **settings):
        made.append(Lane(*arguments, **settings))
        made[-1].num_threads = arguments[2]
        return made[-1]

    monkeypatch.setattr("export.interpreter.Lane", lane)
    runtime = Interpreter(_file(BitScheme(4, 8)), num_threads=num_threads)
    assert [each.num_threads for each in made] == (
        [num_threads // copies] * copies
    )
    assert len(runtime.predict(harness.test_images()[:20])) == 20


def test_the_first_image_at_fault_is_named_whatever_the_threads():
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=8, num_threads=2)
    images = harness.test_images()[:64].copy()
    wanted = runtime.predict(images)
    broken = images.copy()
    broken[[37, 60]] = np.nan
    for _ in range(3):
        with pytest.raises(errors.DataError, match="image 37 holds NaN"):
            runtime.predict(broken)
    np.testing.assert_array_equal(runtime.predict(images), wanted)


def test_fewer_large_images_go_through_at_once(monkeypatch):
    content = _file(BitScheme(4, 8))  # of images with 64 values
    images = harness.test_images()[:40]
    small = Interpreter(content)
    assert small.batch_size == 512
    wanted = small.predict(images)
    for most, batch_size in ((640, 10), (63, 1)):
        monkeypatch.setattr("export.interpreter._MOST_VALUES", most)
        large = Interpreter(content, num_threads=2)
        assert large.batch_size == batch_size
        np.testing.assert_array_equal(large.predict(images), wanted)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_give_what_a_call_for_each_gives(size):
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=8, num_threads=2)
    images = harness.test_images()[:100]
    wanted = runtime.predict(images)
    batches = (images[i : i + size] for i in range(0, 100, size))
    found = list(runtime.predict_batches(batches))
    assert [len(logits) for logits in found] == (
        [size] * (100 // size) + [100 % size] * (100 % size > 0)
    )
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    labels = np.arange(100) % wanted.shape[1]
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(size)
    of_batches, of_calls = (
        measures.evaluate(each, dataset) for each in (runtime, runtime.predict)
    )
    np.testing.assert_array_equal(of_batches.losses, of_calls.losses)
    np.testing.assert_array_equal(of_batches.correct, of_calls.correct)


def test_an_error_of_the_caller_ends_the_batches():
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=8, num_threads=2)
    images = harness.test_images()[:100]
    dataset = tf.data.Dataset.from_tensor_slices((images, np.zeros(100, int)))

    def loss(labels, logits):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measures.evaluate(runtime, dataset.batch(10), loss)
    assert len(runtime.predict(images)) == 100


def test_an_interruption_ends_all_threads(monkeypatch):
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=2, num_threads=2)
    images = harness.test_images()[:200]
    run, finished = Lane.run, []

    def interrupted(self, part, start):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        finished.append(run(self, part, start))
        time.sleep(0.01)
        return finished[-1]

    with monkeypatch.context() as patches:
        patches.setattr(Lane, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.predict(images)
        count = len(finished)
        time.sleep(0.05)
    assert count == len(finished) < 20
    assert len(runtime.predict(images)) == 200


def test_threads_end_with_the_interpreter():
    before = set(threading.enumerate())
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=8, num_threads=3)
    runtime.predict(harness.test_images()[:64])
    started = set(threading.enumerate()) - before
    assert started
    del runtime
    gc.collect()
    for thread in started:
        thread.join(10.0)
    assert not any(thread.is_alive() for thread in started)


@functools.cache
def _identity():
    """Returns the file of a network that returns its rounded input."""
    inputs = layers.Input((4,), name="x")
    dense = layers.Dense(4, use_bias=False, kernel_initializer="identity")
    twin = quantize_model(keras.Model(inputs, dense(inputs)), BitScheme())
    calibrate(twin, [np.float32(254.0 * np.eye(4) - 127.0)])
    for variable in twin.variables:
        if "output_log_step" in variable.name:
            variable.assign(0.0)
    network = inference_model(twin)
    return network, tflite.convert(network)


def test_inputs_are_rounded_and_clipped():
    network, content = _identity()
    step = harness.output_step(network)
    np.testing.assert_allclose(step, 1.0, rtol=1e-5)
    runtime = Interpreter(content)
    assert runtime.output_step_size == np.float32(step)
    assert runtime.input_shape == (4,)
    values = np.float32(
        # a cast would give 0, 1, 2, 3 and wrap around the last ones
        [[0.6, 1.4, 2.6, 3.9], [-0.6, -1.4, -2.6, -3.9], [1e4, -1e4, 200, -129]]
    )
    wanted = [[1, 1, 3, 4], [-1, -1, -3, -4], [127, -128, 127, -128]]
    np.testing.assert_allclose(runtime.predict(values), wanted, rtol=1e-5)
    levels = runtime.output_levels(values)
    assert levels.dtype == np.int8
    np.testing.assert_array_equal(levels, wanted)
    assert network.model.get_layer("x_input_grid").step_size == 1.0
    halves = np.float32([[0.5, 1.5, 2.5, -0.5]])
    np.testing.assert_array_equal(runtime.output_levels(halves), [[0, 2, 2, 0]])
    infinite = np.float32([[np.inf, -np.inf, 0, 0]])
    np.testing.assert_array_equal(
        runtime.output_levels(infinite), [[127, -128, 0, 0]]
    )


def test_inputs_are_rounded_as_the_network_rounds_them():
    grid = _network(BitScheme(4, 8)).model.layers[1]
    step = np.float32(grid.step_size)
    # about every half step, to the next float: a quotient rounds others
    halves = (np.arange(-128, 127, dtype=np.float32) + np.float32(0.5)) * step
    values = np.concatenate(
        [halves, np.nextafter(halves, 9.0), np.nextafter(halves, -9.0)]
    ).astype(np.float32)
    images = np.resize(values, (12, 8, 8, 1))
    lane = Lane(_file(BitScheme(4, 8)), "xnnpack", num_threads=1)
    lane.resize(12)
    lane._fill(images, 0)
    levels = lane._runtime.get_tensor(lane.input.index)
    np.testing.assert_array_equal(levels * step, grid(images).numpy())


_SCALE = 1 / 64


def _passed_on(images):
    """Values of -2 to 127/64, in steps of 1/64, in another shape."""
    images = tf.quantization.fake_quant_with_min_max_args(
        images, -128 * _SCALE, 127 * _SCALE
    )
    return tf.reshape(images, (-1, 4))


@pytest.mark.parametrize(
    ("ends", "dtype", "zero_point"),
    [
        ((tf.int8, tf.int8), np.int8, 0),
        ((tf.uint8, tf.uint8), np.uint8, 128),
        ((tf.float32, tf.int8), np.int8, 0),
        ((tf.uint8, tf.float32), np.float32, None),
        ((tf.int8, tf.float32), np.float32, None),
    ],
)
def test_types_of_input_and_output(ends, dtype, zero_point):
    runtime = Interpreter(_converted(_passed_on, (None, 2, 2, 1), ends=ends))
    values = np.float32([0.3, -0.7, 5.0, -5.0])
    steps = np.array([19, -45, 127, -128])  # 19.2 and -44.8 rounded, clipped
    images = values.reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(runtime.predict(images), [steps / 64])
    levels = runtime.output_levels(images)
    assert levels.dtype == dtype
    if zero_point is None:
        assert runtime.output_step_size is None
        np.testing.assert_array_equal(levels, [steps / 64])
    else:
        assert runtime.output_step_size == _SCALE
        np.testing.assert_array_equal(levels, [steps + zero_point])


def test_float_file_has_no_step():
    assert Interpreter(_file(None)).output_step_size is None


def test_kernels_differ_by_a_step():
    images = harness.digits()[0][:400]
    content = _file(BitScheme(4, 8))
    levels = {
        kernels: np.int16(
            Interpreter(content, kernels=kernels).output_levels(images)
        )
        for kernels in ("xnnpack", "builtin", "reference")
    }
    off = np.abs(levels["xnnpack"] - levels["reference"])
    assert off.any() and off.max() <= 1
    assert np.abs(levels["builtin"] - levels["reference"]).max() <= 1


def test_unknown_kernels():
    with pytest.raises(errors.ExportError, match="'gpu' are unknown: choose"):
        Interpreter(_file(None), kernels="gpu")


def test_bits_that_no_operator_reads_are_expanded():
    images = harness.test_images()[:100]
    narrow = _file(BitScheme(2, 8), storage="int2")
    with pytest.raises(errors.ExportError, match="expand_low_bits=True"):
        Interpreter(narrow)
    wide = Interpreter(_file(BitScheme(2, 8)))
    np.testing.assert_array_equal(
        Interpreter(narrow, expand_low_bits=True).output_levels(images),
        wide.output_levels(images),
    )


@pytest.mark.parametrize(
    "content", [b"", b"junk", bytes(4) + b"TFL3" + bytes(64)]
)
def test_what_is_not_a_model(content):
    with pytest.raises(errors.ExportError, match="cannot run this file"):
        Interpreter(content)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"shape \(2, 8, 8, 3\).*8, 8, 1"),
        (np.zeros((8, 8, 1), np.float32), r"shape \(8, 8, 1\): the file takes"),
        (np.zeros((0, 8, 8, 1), np.float32), r"shape \(0, 8, 8, 1\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), "are uint8: pass them in float32"),
        (np.zeros((2, 8, 8, 1)), "are float64: pass them in float32"),
        (
            np.where(np.arange(128) == 70, np.nan, 0.0)
            .reshape(2, 8, 8, 1)
            .astype(np.float32),
            "image 1 holds NaN",
        ),
    ],
)
@pytest.mark.parametrize("scheme", [None, BitScheme(4, 8)])
def test_images_that_do_not_fit(scheme, images, reason):
    with pytest.raises(errors.DataError, match=reason):
        Interpreter(_file(scheme)).predict(images)


def _fixed(images):
    return tf.reshape(images, (8, 4))


def test_a_fixed_batch():
    content = _converted(_fixed, (8, 2, 2, 1))
    with pytest.raises(errors.ExportError, match="512 examples at once"):
        Interpreter(content)
    images = np.arange(80, dtype=np.float32).reshape(20, 2, 2, 1)
    runtime = Interpreter(content, batch_size=8)  # 20 are padded to 24
    np.testing.assert_array_equal(
        runtime.predict(images), images.reshape(-1, 4)
    )


@pytest.mark.parametrize(
    ("function", "shapes", "reason"),
    [
        (lambda x, y: x + y, [(None, 4)] * 2, "2 inputs: it must have one"),
        (lambda x: (x + 1.0, 2.0 * x), [(None, 4)], "has 2 outputs: it must"),
        (lambda x: tf.argmax(x, 1), [(None, 4)], "output of the file is int64"),
        (
            lambda x: x + 1.0,
            [(None, 2, 2, 1)],
            r"shape \(3, 2, 2, 1\) for 3 im",
        ),
        (
            lambda x: tf.reduce_sum(x, 0, keepdims=True),
            [(None, 4)],
            r"output of shape \(1, 4\) for 3 images",
        ),
    ],
)
def test_ends_that_are_not_images_and_logits(function, shapes, reason):
    content = _converted(function, *shapes)
    images = np.zeros((3, *shapes[0][1:]), np.float32)
    with pytest.raises(errors.ExportError, match=reason):
        Interpreter(content, num_threads=1).predict(images)


def test_an_integer_input_without_a_scale():
    model = parse(_identity()[1])
    (graph,) = model.subgraphs
    graph.tensors[graph.inputs[0]].quantization = None
    with pytest.raises(errors.ExportError, match="int8 with the scale 0.0"):
        Interpreter(pack(model))


def _peak(runtime, images):
    tracemalloc.start()
    runtime.predict(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("scheme", [None, BitScheme(4, 8)])
def test_memory_of_python_is_that_of_the_outputs(scheme):
    runtime = Interpreter(_file(scheme))
    few, many = (
        np.resize(harness.test_images(), (64 * count, 8, 8, 1))
        for count in (10, 100)
    )
    runtime.predict(few)
    more = _peak(runtime, many) - _peak(runtime, few)
    # float32 logits, twice while parts are put together; images are 6 times
    # as much
    assert more < 2.5 * 90 * 64 * 10 * 4


def test_memory_of_the_runtime_does_not_grow():
    process = psutil.Process(os.getpid())
    runtime = Interpreter(_file(BitScheme(4, 8)), batch_size=256)
    images = np.resize(harness.test_images(), (512, 8, 8, 1))

    def run(rounds):
        for count in rounds * (512, 256, 100):  # two of them change the batch
            runtime.predict(images[:count])
        return process.memory_info().rss

    before = run(20)
    # a batch of images is 64 KiB: 600 of them would be 37 MiB
    assert run(200) - before < 8 * 2**20
