"""Layers that stay float in a file of integers.

Between two grids the converter would quantize their weights as it sees fit. A
fence behind each of them, which no integer operator can take in, keeps it
from that; the fences are taken out of the file afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export.model_file import operator_name
from qgen_tf.compat import keras


class FencedLayer(keras.layers.Layer):
    """A layer whose outputs pass through float64."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__(name=layer.name)
        self._layer = layer

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Applies the layer."""
        return tf.nest.map_structure(
            lambda tensor: tf.cast(tf.cast(tensor, tf.float64), tensor.dtype),
            self._layer(*args, **kwargs),
        )


def remove_fences(model: schema.ModelT) -> None:
    """Takes out what casts to float64 and back."""
    graph = model.subgraphs[0]
    casts = [
        operator
        for operator in graph.operators
        if operator_name(model, operator) == "CAST"
    ]
    widened = {
        cast.outputs[0]: cast.inputs[0]
        for cast in casts
        if graph.tensors[cast.outputs[0]].type == schema.TensorType.FLOAT64
    }
    fenced = {
        cast.outputs[0]: widened[cast.inputs[0]]
        for cast in casts
        if cast.inputs[0] in widened
    }
    graph.operators = [
        operator
        for operator in graph.operators
        if operator.outputs[0] not in (widened | fenced)
    ]
    for operator in graph.operators:
        operator.inputs = np.array(
            [fenced.get(index, index) for index in operator.inputs], np.int32
        )
