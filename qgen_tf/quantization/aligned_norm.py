"""LayerNormalization in training and, as its file computes it, thereafter."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tf_keras.src.utils import control_flow_util

from qgen_tf.compat import keras
from qgen_tf.quantization.norm_arithmetic import normalized
from qgen_tf.quantization.norm_grid import NormGrid


@keras.utils.register_keras_serializable(package="qgen_tf")
class AlignedLayerNorm(keras.layers.LayerNormalization):
    """LayerNormalization along the last axis, of a model that is quantized.

    In training it is that of Keras. Once `align` has told it the step sizes
    around it, inference has the whole numbers of the integer runtime, and the
    gradients of Keras. Training on makes it forget them, by their trace in
    gamma: what has not the gamma that was aligned is not aligned. So does
    mixed precision, where inputs are between the levels of their grid. TPUs
    have no float64, in which the step sizes are put together.
    """

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        super().build(input_shape)
        # step size and levels of the inputs, step size of the outputs, gamma
        self.alignment = self.add_weight(
            name="alignment",
            shape=[3 + input_shape[-1]],
            initializer="zeros",
            dtype=tf.float32,
            trainable=False,
            experimental_autocast=False,
        )

    def align(self, grid: NormGrid) -> None:
        """Takes over the step sizes of a grid, and its beta.

        Args:
          grid: of what is deployed for the layer, of NumPy.
        """
        if self.center:
            self.beta.assign(grid.beta)
        if self.scale:
            steps = grid.input_step_size, grid.input_levels
            self.alignment.assign(
                tf.concat([[*steps, grid.output_step_size], self.gamma], 0)
            )

    def call(
        self, inputs: tf.Tensor, training: bool | tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the normalized inputs."""
        outputs = super().call(inputs)
        if not self.scale or self.compute_dtype != "float32" or _is_on_tpu():
            return outputs
        if training is None:
            training = keras.backend.learning_phase()
        steps, gamma = tf.split(self.alignment, [3, -1])
        is_aligned = (steps[0] > 0.0) & tf.reduce_all(gamma == self.gamma)

        def exact() -> tf.Tensor:
            grid = NormGrid.of(
                gamma,
                self.beta if self.center else None,
                input_step_size=steps[0],
                input_levels=steps[1],
                output_step_size=steps[2],
                epsilon=self.epsilon,
            )
            values = normalized(inputs, grid)
            return outputs + tf.stop_gradient(values - outputs)

        return control_flow_util.smart_cond(
            training,
            lambda: outputs,
            lambda: tf.cond(is_aligned, exact, lambda: outputs),
        )


def _is_on_tpu() -> bool:
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
