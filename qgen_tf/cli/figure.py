"""`qgen-figure`: draws trained models."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from absl import flags

from qgen_tf import errors
from qgen_tf.cli import program

if TYPE_CHECKING:
    import matplotlib.figure
    import tensorflow as tf

    from qgen_tf.training import RunDirectory

MANUAL = """\
Draws trained runs side by side and writes one figure.

Kinds:
  landscape       loss around the weights of each deployed network, along
                  random filter-normalized directions, the same for all runs
  bin_width       bin width of each layer of quantized runs
  predicted_rise  what rounding costs one run, in theory, under uniform noise
                  and in fact: of a float run, at several bits without
                  training; of a quantized run, layer by layer
  spectral_density  eigenvalues of the Hessian of each deployed network

Examples:
  qgen-figure --kind=landscape --output=docs/figures/landscape.svg \\
      --run_dirs=runs/quickstart-float-0123abcd,runs/quickstart-w4a8-4567cdef
      contours; 21 x 21 points are 441 passes over 1000 examples a run
  qgen-figure --kind=landscape --style=line --num_points=51 --span=0.5 \\
      --run_dirs=runs/quickstart-float-0123abcd --output=line.pdf
  qgen-figure --kind=predicted_rise --num_examples=0 \\
      --run_dirs=runs/quickstart-float-0123abcd --output=rise.svg
"""

_BATCH_SIZE = 256
_ROUNDED_BITS = (8, 6, 4, 3, 2)
# suffix to the metadata that keep a figure the same when it is drawn again
_METADATA: dict[str, dict[str, str | None]] = {
    ".svg": {"Date": None},
    ".png": {},
    ".pdf": {"CreationDate": None},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the kinds of figures depend on.

    Attributes:
      style: of a landscape; see `landscape_figures.STYLES`.
      num_points: of a landscape, in each direction.
      span: of a landscape, in norms of a filter.
      num_examples: of the training set; 0 takes all.
      seed: of what is drawn at random.
    """

    style: str
    num_points: int
    span: float
    num_examples: int
    seed: int


Kind: TypeAlias = Callable[
    [Sequence["RunDirectory"], Settings], "matplotlib.figure.Figure"
]


def _landscape(
    runs: Sequence[RunDirectory], settings: Settings
) -> matplotlib.figure.Figure:
    """Loss landscapes of runs; see `measures.loss_landscape`."""
    import tqdm

    from qgen_tf import training
    from qgen_tf.measures.landscape import loss_landscape
    from qgen_tf.study.reporting import landscape_figures

    style = landscape_figures.STYLES[settings.style]
    landscapes = {}
    for label, run in _labelled(runs).items():
        landscapes[label] = loss_landscape(
            training.load_model(run.path),
            _examples(run, settings.num_examples),
            seed=settings.seed,
            num_directions=style.num_directions,
            span=settings.span,
            num_points=settings.num_points,
            progress=functools.partial(tqdm.tqdm, desc=label, unit="pass"),
        )
    return style.draw(landscapes)


def _bin_width(
    runs: Sequence[RunDirectory], settings: Settings
) -> matplotlib.figure.Figure:
    """Bin widths of quantized runs, a panel for each config."""
    del settings
    import tqdm

    from qgen_tf import measures, training
    from qgen_tf.quantization import inference_model
    from qgen_tf.study.reporting import theory_figures

    rows: dict[str, dict[int, list[measures.LayerNoise]]] = {}
    for run in tqdm.tqdm(runs, unit="run"):
        config = run.config
        bits = config.quantization.weight_bits
        if not training.is_quantized(config):
            raise errors.ConfigError(
                f"{run.path} is a float run and has no bins: name quantized "
                "runs only."
            )
        networks = rows.setdefault(config.name, {})
        if bits in networks:
            raise errors.ConfigError(
                f"{run.path} is the second run of {config.name!r} at {bits} "
                "bits: name one of them."
            )
        network = inference_model(training.load_model(run.path))
        networks[bits] = measures.layer_noise(network)
    return theory_figures.bin_width_figure(rows)


def _predicted_rise(
    runs: Sequence[RunDirectory], settings: Settings
) -> matplotlib.figure.Figure:
    """Predicted and measured rise in loss of one run."""
    from qgen_tf import training
    from qgen_tf.measures import loss_rises
    from qgen_tf.study.reporting import theory_figures

    if len(runs) > 1:
        raise errors.ConfigError(
            f"predicted_rise is drawn of one run, not of {len(runs)}: name "
            "one in --run_dirs."
        )
    (run,) = runs
    quantized = training.is_quantized(run.config)
    rows = loss_rises(
        training.load_model(run.path),
        _examples(run, settings.num_examples),
        num_bits=None if quantized else _ROUNDED_BITS,
        layerwise=quantized,
        seed=settings.seed,
    )
    return theory_figures.rise_figure(rows)


def _spectral_density(
    runs: Sequence[RunDirectory], settings: Settings
) -> matplotlib.figure.Figure:
    """Spectra of the Hessians of runs; see `measures.spectral_density`."""
    import tqdm

    from qgen_tf import measures, training
    from qgen_tf.quantization import inference_model
    from qgen_tf.study.reporting import theory_figures

    densities = {}
    for label, run in tqdm.tqdm(_labelled(runs).items(), unit="run"):
        densities[label] = measures.spectral_density(
            inference_model(training.load_model(run.path)).model,
            _examples(run, settings.num_examples),
            seed=settings.seed,
        )
    return theory_figures.density_figure(densities)


KINDS: dict[str, Kind] = {
    "landscape": _landscape,
    "bin_width": _bin_width,
    "predicted_rise": _predicted_rise,
    "spectral_density": _spectral_density,
}

_KIND = flags.DEFINE_enum("kind", None, [*KINDS], "what is drawn.")
_RUN_DIRS = flags.DEFINE_list(
    "run_dirs", None, "written by qgen-train, with commas between them."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    f"file to write; its suffix is one of {', '.join(_METADATA)}.",
)
_STYLE = flags.DEFINE_enum(
    "style",
    "contour",
    ["contour", "surface", "line"],
    "of a landscape: contour or surface of a plane, or line.",
)
_NUM_POINTS = flags.DEFINE_integer(
    "num_points", 21, "of a landscape in each direction, odd."
)
_SPAN = flags.DEFINE_float(
    "span", 1.0, "how far a landscape goes, in norms of a filter."
)
_NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 1000, "of the training set; 0 takes all.", lower_bound=0
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "of random directions, noise and probes."
)

flags.register_validator(
    _OUTPUT,
    lambda path: path is None or pathlib.Path(path).suffix in _METADATA,
    f"end the name of the file in one of {', '.join(_METADATA)}.",
)


def _examples(run: RunDirectory, num_examples: int) -> tf.data.Dataset:
    """Returns cached batches of the first training examples; 0 takes all."""
    from qgen_tf import data

    train = data.load(run.config.dataset).train
    return train.take(num_examples or -1).batch(_BATCH_SIZE).cache()


def _labelled(runs: Sequence[RunDirectory]) -> dict[str, RunDirectory]:
    """Returns the runs by their bits, or by their paths if bits occur twice."""
    labels = [run.label for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run.path) for run in runs]
    return dict(zip(labels, runs, strict=True))


def _main() -> None:
    kind, paths = program.require(_KIND), program.require(_RUN_DIRS)
    output = pathlib.Path(program.require(_OUTPUT))
    if not paths:
        raise errors.ConfigError("--run_dirs is empty: name a run directory.")
    import matplotlib

    from qgen_tf import training

    folders = dict.fromkeys(map(pathlib.Path, paths))
    runs = [training.RunDirectory(folder) for folder in folders]
    for run in runs:
        run.require_trained()
    training.make_deterministic(_SEED.value)
    settings = Settings(
        style=_STYLE.value,
        num_points=_NUM_POINTS.value,
        span=_SPAN.value,
        num_examples=_NUM_EXAMPLES.value,
        seed=_SEED.value,
    )
    # text as text and names that do not change: files can be compared
    with (
        # which fails before the work, not after it
        training.atomic_path(output) as target,
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qgen"}),
    ):
        KINDS[kind](runs, settings).savefig(
            target, metadata=_METADATA[output.suffix]
        )
    print(output)


def main() -> None:
    """Runs the program."""
    holders = (
        *(_KIND, _RUN_DIRS, _OUTPUT, _STYLE),
        *(_NUM_POINTS, _SPAN, _NUM_EXAMPLES, _SEED),
    )
    program.run(_main, MANUAL, holders)


if __name__ == "__main__":
    main()
