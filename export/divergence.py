"""Where a file begins to compute something else than its network."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from export.deployed import require_deployed
from export.interpreter import require_images
from export.lane import KERNELS, on_grid, require_kernels
from export.model_file import operator_name, owners, pack, parse
from export.runtime_model import fused_before, runtime_model
from export.weights import expand
from qgen_tf import errors
from qgen_tf.compat import keras
from qgen_tf.quantization import graph
from qgen_tf.quantization.grids import ActivationGrid
from qgen_tf.quantization.inference import InferenceModel

_BATCH_SIZE = 32

# They move values that are on a grid already.
_MOVES = {
    "MAX_POOL_2D",
    "PAD",
    "PADV2",
    "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR",
    "STRIDED_SLICE",
    "TRANSPOSE",
}


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """How far file and network are apart behind one layer.

    Attributes:
      layer: name of the activation grid.
      max_steps: largest difference of a value, in steps of the grid.
      mean_steps: mean over all values.
      share: of the values that differ, in [0, 1].
    """

    layer: str
    max_steps: float
    mean_steps: float
    share: float


def explain(
    network: InferenceModel,
    content: bytes,
    images: np.ndarray,
    *,
    kernels: str = "xnnpack",
    expand_low_bits: bool = False,
) -> tuple[LayerDifference, ...]:
    """Compares file and network grid by grid.

    Both compute from the images on: the first layer that differs is where they
    part, what is behind it inherits the difference.

    Args:
      network: a quantized deployed network.
      content: its file, whose integers are those of the network.
      images: float32 [examples, height, width, channels].
      kernels: of the runtime, whose arithmetic the network is given; see
        `runtime_model`.
      expand_low_bits: see `Interpreter`.

    Returns:
      The grids that the file has a tensor for, in the order of the network.

    Raises:
      DataError: there are no images, or they have another shape or dtype.
      ExportError: the network is float, the kernels are unknown, or the
        runtime cannot run the file.
    """
    require_deployed(network)
    require_kernels(kernels)
    if not network.weight_grids:
        raise errors.ExportError(
            "a float network has no steps to compare: explain a quantized one."
        )
    images = np.asarray(images)
    require_images(images, tuple(network.model.input_shape[1:]))
    content = expand(content) if expand_low_bits else content
    model = parse(content)
    tensors = _tensors(network, model)
    grids = [
        layer
        for layer in graph.topological_layers(network.model)
        if layer.name in tensors
    ]
    twin = runtime_model(network, kernels=kernels)
    inner = keras.Model(
        twin.inputs, [twin.get_layer(grid.name).output for grid in grids]
    )
    indices = [tensors[grid.name] for grid in grids]
    probe = _Probe(model, indices, kernels)
    totals = np.zeros((len(grids), 4))  # largest, sum, differing, count
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE]
        wanted = inner(batch, training=False)
        wanted = wanted if len(grids) > 1 else [wanted]
        for row, grid, ours, theirs in zip(
            totals, grids, wanted, probe(batch), strict=True
        ):
            steps = np.rint(ours.numpy() / grid.step_size)
            off = np.abs(theirs.reshape(steps.shape) - steps)
            row[0] = max(row[0], off.max())
            row[1:] += off.sum(), (off > 0).sum(), off.size
    return tuple(
        LayerDifference(grid.name, largest, total / count, differing / count)
        for grid, (largest, total, differing, count) in zip(
            grids, totals.tolist(), strict=True
        )
    )


def _tensors(network: InferenceModel, model: schema.ModelT) -> dict[str, int]:
    """Maps names of grids to the tensors of the file that are on them.

    The converter fuses layers and names a tensor after all of them; of those
    with the name of a grid or of what it reads, the last is on the grid.
    """
    sources = graph.producers(network.model)
    names = [layer.name for layer in network.model.layers]
    grids = {}
    for layer in network.model.layers:
        if isinstance(layer, ActivationGrid):
            for fused in (layer, *fused_before(sources, layer)):
                grids[fused.name] = layer
    found = {}
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) in _MOVES:
            continue
        (index,) = operator.outputs
        tensor = model.subgraphs[0].tensors[index]
        for owner in owners(tensor.name.decode(), names):
            grid = grids.get(owner)
            if grid is not None and _is_on(tensor, grid):
                found[grid.name] = int(index)
    return found


def _is_on(tensor: schema.TensorT, grid: ActivationGrid) -> bool:
    step_size = np.float32(grid.step_size)
    # an operator may count the tokens of an example among the examples
    shape = [size for size in tensor.shape[1:] if size > 1]
    wanted = [size for size in grid.output.shape[1:] if size > 1]
    return (
        tensor.type == schema.TensorType.INT8
        and list(tensor.quantization.zeroPoint) == [grid.int8_zero_point]
        and abs(tensor.quantization.scale[0] - step_size)
        <= np.spacing(step_size)
        and shape == wanted[len(wanted) - len(shape) :]
    )


class _Probe:
    """Runs a file and returns tensors from inside of it, in steps."""

    def __init__(
        self, model: schema.ModelT, indices: list[int], kernels: str
    ) -> None:
        # the runtime keeps outputs alone, so these become outputs
        model.subgraphs[0].outputs = np.array(indices, np.int32)
        model.signatureDefs = None
        self._runtime = litert.Interpreter(
            model_content=pack(model),
            num_threads=os.cpu_count(),
            experimental_op_resolver_type=KERNELS[kernels],
        )
        self._input = self._runtime.get_input_details()[0]
        self._outputs = {
            details["index"]: details
            for details in self._runtime.get_output_details()
        }
        self._indices = indices

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        index = self._input["index"]
        self._runtime.resize_tensor_input(index, images.shape)
        try:
            self._runtime.allocate_tensors()
            scale, zero_point = self._input["quantization"]
            levels = on_grid(images, scale, zero_point, np.int8)
            self._runtime.set_tensor(index, levels.astype(np.int8))
            self._runtime.invoke()
        except (ValueError, RuntimeError) as error:
            raise errors.ExportError(
                f"the runtime cannot run this file: {error}"
            ) from error
        return [
            self._runtime.get_tensor(tensor).astype(np.float32)
            - self._outputs[tensor]["quantization"][1]
            for tensor in self._indices
        ]
