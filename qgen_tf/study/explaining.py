"""Explains where the file of a run diverges from its network."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from export import divergence
from qgen_tf import data
from qgen_tf.quantization import inference_model
from qgen_tf.study import exporting
from qgen_tf.study.reporting.divergence_figure import divergence_figure
from qgen_tf.training import RunDirectory, atomic_path, load_model

_NUM_EXAMPLES = 256


def explain(
    run_dir: str | os.PathLike[str],
    settings: exporting.Settings = exporting.DEFAULTS,
) -> list[dict[str, Any]]:
    """Finds the layers at which file and network diverge.

    Returns:
      What is written to `settings.divergence_file`, a row for each layer in
      the order of the network; a plot is beside it.

    Raises:
      UserError: as `exporting.export`.
    """
    run = RunDirectory(run_dir)
    run.require_trained()
    with exporting.locked(run):
        return _explain(run, settings)


def _explain(
    run: RunDirectory, settings: exporting.Settings
) -> list[dict[str, Any]]:
    network = inference_model(load_model(run.path))
    content = exporting.file_content(run, network, settings)
    dataset = data.load(run.config.dataset).test
    images = next(iter(dataset.batch(_NUM_EXAMPLES)))[0].numpy()
    layers = divergence.explain(
        network,
        content,
        images,
        kernels=settings.kernels,
        expand_low_bits=settings.expand_low_bits,
    )
    plot = (run.path / settings.divergence_file).with_suffix(".svg")
    with atomic_path(plot) as target:
        divergence_figure(layers).savefig(target, metadata={"Date": None})
    rows = [dataclasses.asdict(layer) for layer in layers]
    run.write_json(settings.divergence_file, rows)
    return rows
