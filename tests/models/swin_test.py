import functools

import numpy as np
import pytest

from qgen_tf import errors, models
from qgen_tf.compat import keras
from qgen_tf.layers import AttentionBias, CyclicShift
from qgen_tf.models import cifar_swin, swin, swin_tiny

SMALL = {
    "patch_size": 2,
    "width": 6,
    "depths": (2, 1),
    "num_heads": (2, 3),
    "window_size": 4,
}


@functools.cache
def _small():
    return cifar_swin((16, 16, 3), 5, **SMALL)


def _of(model, kind):
    return [layer for layer in model.layers if type(layer) is kind]


def test_windows_are_cut_row_by_row_and_put_back():
    inputs = keras.Input((4, 6, 3))
    cut = swin._windows(inputs, 2, name="cut")
    back = swin._image(cut, 2, 4, 6, name="back")
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    windows, same = keras.Model(inputs, [cut, back])(images)
    np.testing.assert_array_equal(same, images.astype(np.float32))
    assert windows.shape == (2, 6, 4, 3)
    for window in range(6):
        y, x = 2 * (window // 3), 2 * (window % 3)
        pixels = images[:, y : y + 2, x : x + 2].reshape(2, 4, 3)
        np.testing.assert_array_equal(
            windows[:, window], pixels.astype(np.float32)
        )


def _attention_by_pixel(query, key, value, table, size, shift):
    """Attention of one head where windows are of an image that never rolls.

    A pixel sees those with which it shares a cell of the grid of windows that
    is moved by `shift` pixels; cells on the border are smaller.
    """
    height, width, _ = query.shape
    pixels = list(np.ndindex(height, width))

    def cell(y, x):
        return (y - shift) // size, (x - shift) // size

    outputs = np.zeros_like(value)
    for y, x in pixels:
        seen = [pixel for pixel in pixels if cell(*pixel) == cell(y, x)]
        scores = [
            query[y, x] @ key[v, u]
            + table[(y - v + size - 1) * (2 * size - 1) + x - u + size - 1]
            for v, u in seen
        ]
        weights = np.exp(scores) / np.exp(scores).sum()
        for weight, pixel in zip(weights, seen, strict=True):
            outputs[y, x] += weight * value[pixel]
    return outputs


@pytest.mark.parametrize(
    ("height", "width", "size", "shift"),
    [(8, 8, 4, 2), (4, 8, 4, 0), (6, 9, 3, 1)],
)
def test_window_attention_against_each_pair_of_pixels(
    height, width, size, shift
):
    inputs = keras.Input((height, width, 4))
    outputs = swin._window_attention(
        inputs, "a", num_heads=2, size=size, shift=shift
    )
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    image = rng.normal(size=(height, width, 4))

    def dense(kind, x):
        kernel, bias = model.get_layer(f"a_{kind}").get_weights()
        return x @ kernel + bias

    query, key, value = (
        dense(kind, image) for kind in ("query", "key", "value")
    )
    table = model.get_layer("a_bias").relative_position_bias.numpy()
    heads = [
        _attention_by_pixel(
            *(part[..., channels] for part in (query, key, value)),
            table[:, head],
            size,
            shift,
        )
        for head, channels in enumerate((slice(0, 2), slice(2, 4)))
    ]
    expected = dense("projection", np.concatenate(heads, axis=-1))
    np.testing.assert_allclose(
        model(image[None])[0], expected, rtol=1e-3, atol=1e-4
    )


def test_merging_concatenates_four_neighbours_row_by_row():
    inputs = keras.Input((4, 6, 2))
    merged = swin._merge(inputs, name="merge")
    model = keras.Model(inputs, merged)
    concat = keras.Model(inputs, model.get_layer("merge_concat").output)
    image = np.arange(48.0).reshape(4, 6, 2)
    expected = [[0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 16, 17, 18, 19]]
    np.testing.assert_array_equal(concat(image[None])[0, 0, :2], expected)
    assert tuple(merged.shape) == (None, 2, 3, 4)
    assert not model.get_layer("merge_reduction").use_bias


def test_defaults_are_the_published_sizes():
    model = swin_tiny((224, 224, 3), 2)
    last = [(1, 56), (1, 28), (5, 14), (1, 7)]
    for stage, (block, side) in enumerate(last):
        output = model.get_layer(f"stage{stage}_block{block}_mlp_add").output
        assert tuple(output.shape) == (None, side, side, 96 * 2**stage)
    heads = [layer.num_heads for layer in _of(model, AttentionBias)]
    assert heads == [3, 3, 6, 6, *(12,) * 6, 24, 24]
    assert {layer.window_size for layer in _of(model, AttentionBias)} == {7}
    # there and back, in every other block but those of the last stage
    shifts = [layer.shift for layer in _of(model, CyclicShift)]
    assert shifts == [3, -3] * 5


def test_every_other_block_is_shifted_where_there_is_room():
    shifted = [
        layer.name
        for layer in _of(_small(), AttentionBias)
        if layer.mask is not None
    ]
    assert shifted == ["stage0_block1_attention_bias"]
    whole = cifar_swin((16, 16, 3), 5, **{**SMALL, "window_size": 9})
    sizes = [layer.window_size for layer in _of(whole, AttentionBias)]
    assert sizes == [8, 8, 4] and not _of(whole, CyclicShift)


def test_parameters_add_up():
    def block(width, heads):
        mlp = 4 * width * (width + 1) + width * (4 * width + 1)
        return 4 * width * (width + 1) + mlp + 4 * width + 7**2 * heads

    merge = 2 * 4 * 6 + 4 * 6 * 12
    stem, head = (3 * 2**2 + 1) * 6 + 2 * 6, 2 * 12 + 13 * 5
    expected = stem + 2 * block(6, 2) + merge + block(12, 3) + head
    assert _small().count_params() == expected


def test_rates_of_stochastic_depth_rise_over_all_stages():
    model = cifar_swin((16, 16, 3), 5, dropout=0.2, drop_path=0.4, **SMALL)
    rates = {
        layer.name: layer.rate
        for layer in _of(model, keras.layers.Dropout)
        if layer.name.endswith("mlp_drop_path")
    }
    assert rates == {
        "stage0_block1_mlp_drop_path": 0.2,
        "stage1_block0_mlp_drop_path": 0.4,
    }
    dropouts = [
        layer.name
        for layer in _of(model, keras.layers.Dropout)
        if layer.rate == 0.2 and layer.name.endswith("dropout")
    ]
    assert len(dropouts) == 1 + 2 * 3


def test_training_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = models.build({"name": "cifar_swin", **SMALL}, (16, 16, 3), 4)
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = np.random.default_rng(0).normal(size=(16, 16, 16, 3))
    labels = np.arange(16) % 4
    history = model.fit(images, labels, epochs=12, batch_size=16, verbose=0)
    first, *_, last = history.history["loss"]
    assert first == pytest.approx(np.log(4), abs=0.1)
    assert last < 0.8 * first


def test_a_saved_model_computes_the_same(tmp_path):
    _small().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    np.testing.assert_array_equal(loaded(images), _small()(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 3}, "patches of 3 pixels, and 16 x 16 is no multiple"),
        ({"window_size": 3}, "cuts stage 0 of 8 x 8 tokens into windows of 3,"),
        ({"window_size": 0}, "cuts stage 0 of 8 x 8 tokens into windows of 0,"),
        (
            {"patch_size": 16},
            "cuts the input of stage 1 of 1 x 1 tokens into windows of 2,",
        ),
        ({"num_heads": (2, 5)}, "shares 12 channels among 5 heads"),
        ({"num_heads": (2,)}, "2 stages by model.depths and 1 by model.num_he"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(errors.ConfigError, match=f"^cifar_swin .*{message}"):
        cifar_swin((16, 16, 3), 5, **{**SMALL, **arguments})
