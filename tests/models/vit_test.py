import functools

import numpy as np
import pytest

from qgen_tf import errors, models
from qgen_tf.compat import keras
from qgen_tf.models import cifar_vit, deit_small, deit_tiny, vit_small

SMALL = {"width": 8, "depth": 3, "num_heads": 2, "patch_size": 4}
MODELS = [deit_tiny, deit_small, vit_small, cifar_vit]


@functools.cache
def _small(build):
    return build((8, 12, 3), 5, **SMALL)


def _parameters(width, depth, patch_size, tokens, classes):
    """Counts by the equations 1 to 4 of ViT; `tokens` with the class token."""
    attention = 4 * width * (width + 1)
    mlp = 4 * width * (width + 1) + width * (4 * width + 1)
    norms = 2 * 2 * width
    patches = (3 * patch_size**2 + 1) * width
    head = 2 * width + (width + 1) * classes
    return depth * (attention + mlp + norms) + patches + tokens * width + head


@pytest.mark.parametrize("build", MODELS)
def test_parameters_add_up(build):
    token = build is not cifar_vit  # a vector, and a position of its own
    expected = _parameters(8, 3, 4, 6 + 2 * token, 5)
    assert _small(build).count_params() == expected


@pytest.mark.parametrize(
    ("build", "width", "num_heads"),
    [(deit_tiny, 192, 3), (deit_small, 384, 6), (vit_small, 384, 6)],
)
def test_defaults_are_the_published_sizes(build, width, num_heads):
    model = build((32, 32, 3), 2)
    assert model.get_layer("patches").kernel.shape == [16, 16, 3, width]
    assert model.get_layer("block11_mlp_add").output is (
        model.get_layer("class_token").input
    )
    scores = model.get_layer("block0_attention_scores").output
    assert tuple(scores.shape) == (None, num_heads, 5, 5)


def test_logits_read_the_class_token_or_the_average():
    token, average = _small(deit_tiny), _small(cifar_vit)
    assert tuple(token.get_layer("features").output.shape) == (None, 8)
    assert tuple(average.get_layer("pool").input.shape) == (None, 6, 8)
    names = {layer.name for layer in average.layers}
    assert not names & {"features", "class_token"}


def test_the_scale_of_the_scores_is_part_of_the_query():
    model = cifar_vit((8, 8, 3), 2, width=256, depth=1, num_heads=4)
    query, key = (
        model.get_layer(f"block0_attention_{kind}").kernel.numpy().std()
        for kind in ("query", "key")
    )
    assert key / query == pytest.approx(8.0, rel=0.05)  # (256 / 4)**0.5


def test_one_head_sees_all_tokens():
    """A block against softmax(x Wq (x Wk)^T) x Wv, written out."""
    model = cifar_vit((8, 8, 1), 2, width=6, depth=1, num_heads=2)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    names = ["norm", "query", "key", "value", "projection"]
    ends = [model.get_layer(f"block0_attention_{name}") for name in names]
    parts = keras.Model(model.input, [layer.output for layer in ends])
    x, query, key, value, projected = (
        part.numpy()[0] for part in parts(rng.normal(size=(1, 8, 8, 1)))
    )
    for layer, part in zip(ends[1:4], (query, key, value), strict=True):
        kernel, bias = layer.get_weights()
        np.testing.assert_allclose(x @ kernel + bias, part, atol=1e-4)
    heads = []
    for channels in (slice(0, 3), slice(3, 6)):
        scores = np.exp(query[:, channels] @ key[:, channels].T)
        weights = scores / scores.sum(axis=1, keepdims=True)
        heads.append(weights @ value[:, channels])
    kernel, bias = ends[-1].get_weights()
    expected = np.concatenate(heads, axis=1) @ kernel + bias
    np.testing.assert_allclose(projected, expected, rtol=1e-3, atol=1e-3)


def test_rates_of_dropout_and_stochastic_depth():
    model = cifar_vit((8, 8, 3), 2, dropout=0.1, drop_path=0.3, **SMALL)
    rates = {
        layer.name: layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    }
    kinds = ("attention", "mlp")
    values = {
        f"block{i}_{kind}_dropout": 0.1 for i in range(3) for kind in kinds
    }
    paths = {
        f"block{i}_{kind}_drop_path": pytest.approx(0.15 * i)
        for i in (1, 2)
        for kind in kinds
    }
    assert rates == {"position_dropout": 0.1, **values, **paths}
    assert not [
        layer
        for layer in _small(cifar_vit).layers
        if isinstance(layer, keras.layers.Dropout)
    ]


def test_stochastic_depth_drops_whole_examples():
    model = cifar_vit((8, 8, 3), 2, drop_path=0.5, **SMALL)
    layer = model.get_layer("block2_mlp_drop_path")
    outputs = layer(np.ones((64, 4, 8), np.float32), training=True).numpy()
    assert set(np.unique(outputs)) == {0.0, 2.0}
    assert (outputs == outputs[:, :1, :1]).all()


@pytest.mark.parametrize(
    "name", ["cifar_vit", pytest.param("deit_tiny", marks=pytest.mark.full)]
)
def test_training_lowers_the_loss(name):
    keras.utils.set_random_seed(0)
    model = models.build({"name": name, **SMALL}, (8, 8, 3), 4)
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 3))
    labels = np.arange(16) % 4
    history = model.fit(images, labels, epochs=12, batch_size=16, verbose=0)
    first, *_, last = history.history["loss"]
    assert first == pytest.approx(np.log(4), abs=0.1)
    assert last < 0.8 * first


@pytest.mark.parametrize("build", [deit_tiny, cifar_vit])
def test_a_saved_model_computes_the_same(tmp_path, build):
    model = _small(build)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3))
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 5}, r"patches of 5 pixels, and 8 x 12 is no multiple"),
        ({"patch_size": 8}, r"patches of 8 pixels, and 8 x 12 is no multiple"),
        ({"num_heads": 3}, r"shares 8 channels among 3 heads: make the width"),
        ({"num_heads": 0}, r"shares 8 channels among 0 heads: make the width"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(errors.ConfigError, match=f"^deit_tiny .*{message}"):
        deit_tiny((8, 12, 3), 5, **{**SMALL, **arguments})
