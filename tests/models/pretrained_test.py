"""Weights of timm's models give timm's logits; other files give a sentence."""

import functools
import logging
import pathlib
import pickle
import re

import numpy as np
import pytest
import safetensors.numpy

from qgen_tf import errors, models
from qgen_tf.models.pretrained import load_pretrained

PEERS = pathlib.Path(__file__).parent / "peers"
_VIT = {"width": 16, "depth": 2, "patch_size": 4}
_SWIN = {"width": 16, "window_size": 3, "depths": (2, 1), "num_heads": (2, 2)}
# file: the same model here, and the side of its images in pixels
MODELS = {
    "vit_token": ({"name": "deit_tiny", "num_heads": 2, **_VIT}, 16),
    "vit_average": ({"name": "cifar_vit", "num_heads": 4, **_VIT}, 16),
    "swin_window4": (
        {
            "name": "cifar_swin",
            "width": 16,
            "depths": (2, 2),
            "num_heads": (2, 4),
        },
        16,
    ),
    "swin_window3": ({"name": "swin_tiny", **_SWIN}, 24),
}


def _build(peer, size=None, num_classes=5, **arguments):
    config, own_size = MODELS[peer]
    shape = (size or own_size,) * 2 + (3,)
    return models.build({**config, **arguments}, shape, num_classes)


def _path(peer, what=""):
    return PEERS / f"{peer}{what}.safetensors"


@functools.cache
def _tensors(peer):
    return safetensors.numpy.load_file(_path(peer))


def _write(path, tensors):
    write = {
        ".npz": lambda: np.savez(path, **tensors),
        ".safetensors": lambda: safetensors.numpy.save_file(tensors, path),
    }
    write[path.suffix]()
    return path


def _assert_logits(model, outputs):
    outputs = safetensors.numpy.load_file(outputs)
    assert outputs["logits"].std() > 0.3
    np.testing.assert_allclose(
        model(outputs["images"]), outputs["logits"], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("peer", MODELS)
def test_logits_are_those_of_timm(peer):
    model = _build(peer)
    load_pretrained(model, str(_path(peer)))
    _assert_logits(model, _path(peer, ".outputs"))


@pytest.mark.parametrize("size", [8, 28])
def test_positions_of_other_images_are_interpolated_as_timm_does(size):
    model = _build("vit_token", size)
    load_pretrained(model, _path("vit_token"))
    _assert_logits(model, _path("vit_token", f".outputs{size}"))


def _as_swins_authors(tensors):
    renamed = {
        name.replace("head.fc.", "head.").replace(
            "layers.1.downsample", "layers.0.downsample"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    index = {"layers.0.blocks.0.attn.relative_position_index": np.ones((9, 9))}
    mask = {"layers.0.blocks.1.attn_mask": np.zeros((4, 9, 9))}
    return {**renamed, **index, **mask}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_names_of_swins_authors(tmp_path, suffix):
    tensors = _as_swins_authors(_tensors("swin_window3"))
    model = _build("swin_window3")
    load_pretrained(model, _write(tmp_path / f"swin{suffix}", tensors))
    _assert_logits(model, _path("swin_window3", ".outputs"))


@pytest.mark.parametrize("peer", ["vit_token", "swin_window3"])
def test_another_head_is_passed_over(peer, caplog):
    model = _build(peer, num_classes=7)
    before = {w.name: w.numpy() for w in model.get_layer("logits").weights}
    with caplog.at_level(logging.WARNING):
        load_pretrained(model, _path(peer))
    (record,) = caplog.records
    assert "has no head of 7 classes: the logits of" in record.getMessage()
    for weight in model.get_layer("logits").weights:
        np.testing.assert_array_equal(weight, before[weight.name])
    # all the rest is there: with a head of 5 classes the logits are timm's
    whole = _build(peer)
    load_pretrained(whole, _path(peer))
    for got, expected in zip(
        model.weights[:-2], whole.weights[:-2], strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_a_file_without_a_head_is_of_another_number_of_classes(tmp_path):
    tensors = {
        name: tensor
        for name, tensor in _tensors("vit_token").items()
        if not name.startswith("head")
    }
    model = _build("vit_token")
    load_pretrained(model, _write(tmp_path / "features.npz", tensors))
    np.testing.assert_array_equal(
        model.get_layer("norm").gamma, tensors["norm.weight"]
    )


def test_numbers_of_half_precision(tmp_path):
    tensors = {
        name: tensor.astype(np.float16)
        for name, tensor in _tensors("vit_token").items()
    }
    model = _build("vit_token")
    load_pretrained(model, _write(tmp_path / "half.safetensors", tensors))
    bias = model.get_layer("norm").beta.numpy()
    np.testing.assert_array_equal(bias, tensors["norm.bias"])


@pytest.mark.parametrize(
    "config", [MODELS["swin_window3"][0], {"name": "nin", "width": 4}]
)
def test_keras_weights_of_any_model(tmp_path, config):
    first, second = (models.build(config, (24, 24, 3), 5) for _ in range(2))
    first.save_weights(tmp_path / "a.weights.h5")
    load_pretrained(second, tmp_path / "a.weights.h5")
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def _changed(name, change):
    tensors = dict(_tensors("vit_token"))
    tensors[name] = change(tensors[name])
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {
                k: t
                for k, t in _tensors("vit_token").items()
                if k != "cls_token"
            },
            r"lacks what deit_tiny needs, 1 tensors such as \['cls_token'\]: ",
        ),
        (
            {**_tensors("vit_token"), "dist_token": np.ones((1, 1, 16))},
            r"has what deit_tiny has no place for, 1 .*\['dist_token'\]: give",
        ),
        (
            _tensors("swin_window3"),
            r"lacks what deit_tiny needs, 26 tensors such as \['blocks\.0\.att",
        ),
        (
            _changed("blocks.1.attn.qkv.weight", lambda t: t[:-3]),
            r"has blocks\.1\.attn\.qkv\.weight of shape \(45, 16\), which does "
            r"not fit \(expected \(48, 16\)\): build",
        ),
        (
            _changed("norm.bias", lambda t: t[0]),
            r"norm\.bias of shape \(\), which does not fit \(expected \(16,\)",
        ),
        (
            _changed("pos_embed", lambda t: t[:, :-1]),
            r"pos_embed of shape \(1, 16, 16\), which does not fit",
        ),
        (
            _changed("norm.bias", lambda t: t.astype("U9")),
            r"cannot be read as a \.npz file of numbers \(Cannot cast",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, tensors, message):
    path = _write(tmp_path / "vit.npz", tensors)
    model = _build("vit_token")
    before = model.get_weights()
    with pytest.raises(
        errors.ModelError, match=f"^{re.escape(str(path))} .*{message}"
    ):
        load_pretrained(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".weights.h5"])
@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_damaged_files(tmp_path, suffix, kind):
    model = _build("vit_token")
    path = tmp_path / f"vit{suffix}"
    if suffix == ".weights.h5":
        model.save_weights(path)
    else:
        _write(path, _tensors("vit_token"))
    whole = path.read_bytes()
    content = {"cut": whole[: len(whole) * 2 // 3], "text": b"x" * 99}
    path.write_bytes(content.get(kind, b""))
    before = model.get_weights()
    with pytest.raises(errors.ModelError, match=f"^{re.escape(str(path))} can"):
        load_pretrained(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickled file was run",))


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_pickled_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"vit{suffix}"
    path.write_bytes(pickle.dumps(_Trap()))
    message = {".pth": r"convert it, where you trust it, with `safetensors\."}
    expected = message.get(suffix, "cannot be read as a")
    with pytest.raises(errors.ModelError, match=expected):
        load_pretrained(_build("vit_token"), path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "vit.npz"
    np.savez(path, **{"norm.bias": np.array([_Trap()], dtype=object)})
    with pytest.raises(errors.ModelError, match="allow_pickle=False"):
        load_pretrained(_build("vit_token"), path)


def test_keras_weights_of_another_model(tmp_path):
    path = tmp_path / "a.weights.h5"
    _build("vit_token", depth=1).save_weights(path)
    with pytest.raises(errors.ModelError, match="cannot be loaded into deit_"):
        load_pretrained(_build("vit_token"), path)


def test_a_model_that_is_no_transformer():
    model = models.build({"name": "nin", "width": 4}, (16, 16, 3), 5)
    message = "^nin is no vision transformer, for it has the BatchNormaliza"
    with pytest.raises(errors.ModelError, match=message):
        load_pretrained(model, _path("vit_token"))


def test_no_file(tmp_path):
    path = tmp_path / "no.npz"
    message = f"^there is no file of weights {re.escape(str(path))}: give"
    with pytest.raises(errors.ModelError, match=message):
        load_pretrained(_build("vit_token"), path)
