"""What a new user passes by mistake is told in one sentence."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from qgen_tf import errors, measures
from qgen_tf.compat import keras
from qgen_tf.measures import equivalence
from qgen_tf.measures.objective import Objective
from qgen_tf.quantization import (
    BitScheme,
    calibrate,
    inference_model,
    quantize_model,
)
from tests import harness

IMAGES, LABELS = (part[:12] for part in harness.digits())
ONE_HOT = np.eye(10, dtype=np.float32)[LABELS]


def _batches(images, labels, batch_size=6):
    examples = tf.data.Dataset.from_tensor_slices((images, labels))
    return examples.batch(batch_size)


def _without_shapes(dataset):
    """Returns the same examples, as those of a `tf.py_function` are."""
    kinds = [spec.dtype for spec in dataset.element_spec]
    return dataset.map(
        lambda *example: tf.py_function(lambda *same: same, example, kinds)
    )


GOOD = _batches(IMAGES, LABELS)
EXAMPLES = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
# what is wrong with a data set, whoever reads it, and what is said about it
DATA = {
    "nothing": (None, "not NoneType: make one by"),
    "arrays": ((IMAGES, LABELS), "must be a tf.data.Dataset, not tuple"),
    "an array": (IMAGES, "must be a tf.data.Dataset, not ndarray"),
    "batches": (list(GOOD), "must be a tf.data.Dataset, not list"),
    "examples": (EXAMPLES, "single examples: pass batches of them"),
    "no labels": (GOOD.map(lambda images, _: images), "must consist of pairs"),
    "names": (
        GOOD.map(lambda images, labels: {"image": images, "label": labels}),
        "must consist of pairs .* has {'image'",
    ),
    "weights": (_batches(IMAGES, LABELS).map(lambda x, y: (x, y, y)), "pairs"),
    "one-hot": (_batches(IMAGES, ONE_HOT), r"\(None, 10\).*take tf.argmax"),
    "one-hot integers": (
        _batches(IMAGES, ONE_HOT.astype(np.int64)),
        "are int64 of the shape .* take tf.argmax",
    ),
    "floats": (_batches(IMAGES, LABELS * 1.0), "are float64 of the shape"),
    "swapped": (_batches(LABELS, IMAGES), r"\(None, 8, 8, 1\): they must"),
    "empty": (GOOD.take(0), "is empty"),
    "cropped": (
        _batches(IMAGES[:, :6], LABELS),
        r"\((None|6), 6, 8, 1\), and model 'nin' takes \(None, 8, 8, 1\)",
    ),
    "colors": (
        _batches(IMAGES.repeat(3, axis=-1), LABELS),
        "8, 8, 3.* make the images of that size",
    ),
    "other classes": (_batches(IMAGES, LABELS + 3), "the label 1[0-2], and"),
    "no class": (_batches(IMAGES, LABELS - 1), "label -1, .* labels 0 to 9"),
}
READERS = {
    "evaluate": measures.evaluate,
    "margins": measures.margins,
    "gradient": lambda model, data: measures.sam_sharpness(model, data),
    "curvature": lambda model, data: measures.layer_traces(
        model, data, num_probes=2
    ),
}


@pytest.fixture(scope="module")
def model():
    return harness.tiny_nin()


@pytest.fixture(scope="module")
def twin(model):
    """Returns the quantized model; neither was trained."""
    quantized = quantize_model(model, BitScheme(8, 8))
    calibrate(quantized, GOOD)
    return quantized


def _told(error, message):
    """Returns the check that an error is one sentence with the message."""
    return pytest.raises(error, match=rf"^(?!.*\n).*{message}.*\.$")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mistake", DATA)
def test_data(model, mistake, reader):
    dataset, message = DATA[mistake]
    with _told(errors.DataError, message):
        READERS[reader](model, dataset)


@pytest.mark.parametrize("reader", READERS)
def test_shapes_that_are_not_said_are_looked_up(model, reader):
    READERS[reader](model, _without_shapes(GOOD))
    with _told(errors.DataError, "single examples: pass batches"):
        READERS[reader](model, _without_shapes(EXAMPLES))
    with _told(errors.DataError, "is empty"):
        READERS[reader](model, _without_shapes(GOOD.take(0)))


def test_nothing_is_read_to_look_at_a_data_set(model):
    read = []

    def seen(label):
        read.append(int(label))
        return label

    def labelled(image, label):
        label = tf.ensure_shape(tf.py_function(seen, [label], tf.int64), [])
        return image, label

    dataset = EXAMPLES.map(labelled).batch(6)
    objective = Objective(model, dataset, measures.cross_entropy)
    assert read == []
    objective()
    assert len(read) == len(LABELS)


def test_a_single_image_does_not_reach_the_kernels(model):
    with _told(errors.DataError, r"the shape \(8, 8, 1\), and model 'nin'"):
        measures.predictor(model)(IMAGES[0])


def test_images_that_hold_nan(model):
    images = IMAGES.copy()
    images[7, 0, 0, 0] = np.nan
    with _told(errors.DataError, "holds NaN: mend"):
        measures.evaluate(model, _batches(images, LABELS))


@pytest.mark.parametrize(
    "name",
    [
        *("average_sharpness", "l2_sharpness", "sam_sharpness"),
        *("pac_bayes_sigma", "sharpness_alpha", "hessian_trace"),
    ],
)
def test_measures_of_images_that_hold_nan(model, name):
    images = IMAGES.copy()
    images[7, 2, 2, 0] = np.nan  # which max pooling or a ReLU may swallow
    with _told(errors.DataError, "holds NaN: mend"):
        measures.MEASURES[name](model, _batches(images, LABELS))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("average_sharpness", {"seed": "a"}, "seed='a': write a whole number"),
        ("average_sharpness", {"seed": -1}, "seed=-1: .* number, 0 or more"),
        ("average_sharpness", {"sigma": None}, "sigma=None: write a number"),
        ("average_sharpness", {"num_samples": 1.5}, "num_samples=1.5: write a"),
        ("average_sharpness", {"adaptive": "no"}, "'no': write True or False"),
        ("sam_sharpness", {"rho": [0.1]}, r"rho=\[0.1\]: write a number"),
        ("sam_sharpness", {"m": True}, "m=True: write a whole number"),
        ("linf_sharpness", {"num_steps": "a"}, "num_steps='a': write a whole"),
        ("linf_sharpness", {"norm": []}, r"norm=\[\]: write a text"),
        ("hessian_trace", {"num_probes": None}, "num_probes=None: write"),
        ("pac_bayes_flatness", {"delta": "a"}, "delta='a': write a number"),
        ("path_norm", {"point": 3}, "point=3: write a text"),
        ("pac_bayes_sigma", {"bounds": None}, "bounds=None: write two numbers"),
        ("sharpness_alpha", {"bounds": [1]}, r"bounds=\[1\]: write two"),
    ],
)
def test_settings_of_the_wrong_type(model, name, settings, message):
    with _told(errors.ConfigError, message):
        measures.MEASURES[name](model, GOOD, **settings)


def test_a_setting_may_be_of_numpy_or_left_open(model):
    found = measures.worst_case_sharpness(
        model, GOOD, rho=np.float32(0.25), num_steps=np.int64(1), seed=3, m=None
    )
    same = measures.worst_case_sharpness(
        model, GOOD, rho=0.25, num_steps=1, seed=3
    )
    assert found.value == same.value


@pytest.mark.parametrize("margin", ["a", None, [1], np.nan, -1, 0, True])
def test_margins(model, margin):
    found = measures.evaluate(model, GOOD)
    with _told(errors.ConfigError, "margin is .*: set it to"):
        equivalence.accuracy_equivalence(found, found, margin=margin)


def test_a_model_stands_for_its_predictor(twin):
    network = inference_model(twin)
    for given, same in ((twin, twin), (network, network.model)):
        found = measures.evaluate(given, GOOD)
        expected = measures.evaluate(measures.predictor(same), GOOD)
        np.testing.assert_array_equal(found.losses, expected.losses)
        np.testing.assert_array_equal(found.correct, expected.correct)


def test_tensors_stand_for_arrays(model):
    found = measures.evaluate(lambda images: model(images), GOOD)
    assert found.losses.shape == LABELS.shape


def test_a_model_that_ends_in_probabilities():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(10, activation="softmax")(x)
    with _told(errors.ConfigError, "ends in probabilities"):
        measures.evaluate(keras.Model(inputs, outputs), GOOD)


@pytest.mark.parametrize(
    "measure",
    [
        measures.predictor,
        lambda given: measures.margins(given, GOOD),
        lambda given: measures.sam_sharpness(given, GOOD),
        lambda given: measures.sam_sharpness(given, GOOD, point="latent"),
        lambda given: measures.layer_traces(given, GOOD),
        lambda given: measures.layer_gauss_newton_traces(given, GOOD),
        lambda given: measures.top_eigenvalues(given, GOOD, count=1),
        lambda given: measures.spectral_density(given, GOOD),
        lambda given: measures.parameter_norm(given, GOOD),
        lambda given: measures.path_norm(given, GOOD),
        lambda given: measures.loss_rises(given, GOOD),
        lambda given: measures.suggest_bits(given, GOOD, 1000),
        measures.layer_noise,
    ],
)
@pytest.mark.parametrize("given", [None, 4, "runs/quickstart", GOOD])
def test_what_is_no_model(measure, given):
    kind = re.escape(type(given).__name__)
    with _told(errors.ModelError, f"tf_keras, found a .*{kind}: build it"):
        measure(given)


@pytest.mark.parametrize("given", [None, b"content", GOOD])
def test_what_can_not_be_evaluated(given):
    with _told(errors.ModelError, f"not {type(given).__name__}, or a function"):
        measures.evaluate(given, GOOD)


def test_outputs_that_are_classes(model):
    predict = measures.predictor(model)
    with _told(errors.ModelError, r"outputs of the shape \(6,\)"):
        measures.evaluate(lambda images: predict(images).argmax(-1), GOOD)


@pytest.mark.parametrize("reader", ["evaluate", "gradient", "curvature"])
@pytest.mark.parametrize(
    "loss_fn", [None, "cross_entropy", measures.CrossEntropy]
)
def test_what_is_no_loss(model, reader, loss_fn):
    measure = {
        "evaluate": measures.evaluate,
        "gradient": measures.sam_sharpness,
        "curvature": measures.layer_traces,
    }[reader]
    with _told(errors.ConfigError, "loss_fn is .*: pass a function"):
        measure(model, GOOD, loss_fn)


def test_the_mean_loss_is_told_without_the_trace(model):
    with _told(errors.ConfigError, "loss of each example, of shape"):
        measures.sam_sharpness(model, GOOD, harness.loss())


@pytest.mark.parametrize(
    "measure",
    [
        measures.evaluate,
        lambda model, data: measures.sam_sharpness(model, data, point="latent"),
    ],
)
def test_a_model_that_was_not_calibrated(model, measure):
    quantized = quantize_model(model, BitScheme(8, 8))
    with _told(errors.ModelError, "call qgen_tf.calibrate"):
        measure(quantized, GOOD)


@pytest.mark.parametrize("variables", ["logits", ["logits"]])
def test_names_in_the_place_of_variables(model, variables):
    for measure in (
        measures.sam_sharpness,
        measures.layer_traces,
        measures.parameter_norm,
        functools.partial(measures.generalization_bound, num_bits=4),
    ):
        with _told(errors.ConfigError, "pass a function from a model"):
            measure(model, GOOD, variables=variables)


def test_what_is_no_name_of_a_layer():
    with _told(errors.ConfigError, r"of_layer has name=\[\]: write a text"):
        measures.of_layer([])


def test_a_landscape_that_shows_no_progress(model):
    with _told(errors.ConfigError, "progress=None: write a function"):
        measures.loss_landscape(model, GOOD, progress=None)


def test_a_deployed_network_stands_for_its_model(twin):
    network = inference_model(twin)
    for measure in (
        measures.margins,
        lambda *args: [
            trace.trace
            for trace in measures.layer_gauss_newton_traces(*args, num_probes=2)
        ],
    ):
        np.testing.assert_array_equal(
            measure(network, GOOD), measure(network.model, GOOD)
        )


def test_a_model_stands_for_its_deployed_network(twin):
    found = measures.layer_noise(twin)
    assert found == measures.layer_noise(inference_model(twin))
    assert len(found) > 1


def test_gaps_of_what_is_no_evaluation(model):
    found = measures.evaluate(model, GOOD)
    gap = measures.generalization_gap(found, found)
    for given in ((0.9, 0.8), (found, None), (model, GOOD)):
        with _told(errors.DataError, "pass what measures.evaluate returns"):
            measures.generalization_gap(*given)
    for given in ((found, found), (gap, gap), ((found, found), found)):
        with _told(errors.DataError, "pass what measures.evaluate returns"):
            measures.gap_difference(*given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": None}, "budget=None: write a number"),
        ({"budget": "10kB"}, "budget='10kB': write a number"),
        ({"budget": 1000, "choices": 4}, r"such as \(4, 8\)"),
        ({"budget": 1000, "choices": "a"}, "bits"),
    ],
)
def test_budgets(model, settings, message):
    with _told(errors.ConfigError, message):
        measures.suggest_bits(model, GOOD, **settings)


def test_a_number_in_the_place_of_numbers(model):
    with _told(errors.ConfigError, r"such as \(4, 8\), not 10 and 4"):
        measures.loss_rises(model, GOOD, num_bits=4)
