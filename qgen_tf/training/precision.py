"""The type that layers compute in; weights and quantizers are float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qgen_tf import errors
from qgen_tf.compat import keras

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def check_policy(name: str) -> None:
    """Raises a ConfigError unless a model can be trained in a policy."""
    if name not in POLICIES:
        raise errors.ConfigError(
            f"training.mixed_precision is {name!r}: choose one of "
            f"{list(POLICIES)}."
        )


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Lets the models that are built inside compute in a policy of Keras."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def with_float32_outputs(model: keras.Model) -> keras.Model:
    """Returns a view of the model whose outputs are float32, for the loss.

    It shares its layers with `model`; where that returns float32 already, it
    is `model` itself.
    """
    if model.output.dtype == "float32":
        return model
    cast = keras.layers.Activation("linear", dtype="float32", name="float32")
    return keras.Model(model.input, cast(model.output), name=model.name)
