"""Writes tests/models/peers: small models of timm, and what they compute.

By hand, in an environment of its own that has torch and timm (1.0.31 here):

    python tests/models/make_peer_fixtures.py tests/models/peers

With `--full`, the published sizes instead, some 130 MB, for a check by hand.
"""

import argparse
import pathlib

import safetensors.torch
import timm
import torch

_VIT = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_classes": 5,
}
_SWIN = {"embed_dim": 16, "num_classes": 5}
# name of the file: name and arguments of timm's model
SMALL = {
    # class token, as DeiT and ViT have it
    "vit_token": ("vit_tiny_patch16_224", {**_VIT, "num_heads": 2}),
    # average of all tokens
    "vit_average": (
        "vit_tiny_patch16_224",
        {
            **_VIT,
            "num_heads": 4,
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
        },
    ),
    # grids of 8 and 4: shifted windows of 4, then one window
    "swin_window4": (
        "swin_tiny_patch4_window7_224",
        {
            **_SWIN,
            "img_size": 16,
            "patch_size": 2,
            "depths": (2, 2),
            "num_heads": (2, 4),
            "window_size": 4,
        },
    ),
    # grids of 6 and 3: shifted windows of 3, then one window
    "swin_window3": (
        "swin_tiny_patch4_window7_224",
        {
            **_SWIN,
            "img_size": 24,
            "depths": (2, 1),
            "num_heads": (2, 2),
            "window_size": 3,
        },
    ),
}
FULL = {
    "deit_tiny": ("deit_tiny_patch16_224", {}),
    "swin_tiny": ("swin_tiny_patch4_window7_224", {}),
}


def _randomize(model, generator):
    """Draws every weight anew, those that start at 0 or 1 too."""
    for name, weight in model.named_parameters():
        scale = 1.0 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.3
        if name.endswith(("table", "pos_embed", "cls_token")):
            scale = 0.5
        noise = torch.randn(weight.shape, generator=generator) * scale
        ones = name.endswith("weight") and weight.ndim == 1  # LayerNorm's
        weight.data = noise + 1.0 if ones else noise


def _write_outputs(path, model, side, generator):
    images = torch.randn((3, 3, side, side), generator=generator)
    with torch.inference_mode():
        logits = model.eval()(images)
    images = images.permute(0, 2, 3, 1).contiguous()
    tensors = {"images": images, "logits": logits}
    safetensors.torch.save_file(tensors, path)


def _resized(model, peer, arguments, side):
    """Returns timm's ViT for another size of images, positions resampled."""
    other = timm.create_model(peer, **{**arguments, "img_size": side})
    state = model.state_dict()
    state["pos_embed"] = timm.layers.resample_abs_pos_embed(
        state["pos_embed"], (side // 4, side // 4)
    )
    other.load_state_dict(state)
    return other


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    for name, (peer, arguments) in (FULL if options.full else SMALL).items():
        generator = torch.Generator().manual_seed(0)
        model = timm.create_model(peer, **arguments)
        _randomize(model, generator)
        path = options.folder / name
        safetensors.torch.save_file(
            model.state_dict(), path.with_suffix(".safetensors")
        )
        side = arguments.get("img_size", 224)
        outputs = path.with_suffix(".outputs.safetensors")
        _write_outputs(outputs, model, side, generator)
        if name == "vit_token":
            for side in (8, 28):
                other = _resized(model, peer, arguments, side)
                outputs = path.with_suffix(f".outputs{side}.safetensors")
                _write_outputs(outputs, other, side, generator)


if __name__ == "__main__":
    main()
