"""Loss landscapes of a float model and its twins, kept beside a report."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tqdm

from qgen_tf import data, errors
from qgen_tf.measures.landscape import Landscape, loss_landscape
from qgen_tf.training import RunDirectory, atomic_path, load_model

FILE = "landscape.json"

_NUM_POINTS = 13  # in each of two directions
_SPAN = 0.5  # norms of a filter
_NUM_EXAMPLES = 512
_BATCH_SIZE = 256
_ARRAYS = ("coordinates", "losses", "accuracies")


def take(
    runs: Sequence[RunDirectory], folder: str | os.PathLike[str]
) -> dict[str, Landscape]:
    """Evaluates the loss on a plane through the weights of each run.

    All are cut along the same directions; see `measures.loss_landscape`. What
    stands in `folder` of the same runs is not evaluated again.

    Args:
      runs: a float run and its twins.
      folder: where `landscape.json` goes.

    Returns:
      The bits of each run to its plane.
    """
    path = pathlib.Path(folder) / FILE
    names = [run.path.name for run in runs]
    if _is_of(path, names):
        return read(folder)
    train = data.load(runs[0].config.dataset).train
    examples = train.take(_NUM_EXAMPLES).batch(_BATCH_SIZE).cache()
    found = {
        run.label: loss_landscape(
            load_model(run.path),
            examples,
            span=_SPAN,
            num_points=_NUM_POINTS,
            progress=functools.partial(
                tqdm.tqdm, desc=f"{run.label} landscape", unit="pass"
            ),
        )
        for run in runs
    }
    content = {
        "runs": names,
        "landscapes": {
            label: {"settings": plane.settings}
            | {name: _to_json(getattr(plane, name)) for name in _ARRAYS}
            for label, plane in found.items()
        },
    }
    with atomic_path(path) as target:
        target.write_text(json.dumps(content, allow_nan=False) + "\n")
    return found


def read(folder: str | os.PathLike[str]) -> dict[str, Landscape]:
    """Returns what `take` has written into a folder; nothing if it has not.

    Raises:
      DataError: the file is damaged.
    """
    path = pathlib.Path(folder) / FILE
    if not path.exists():
        return {}
    try:
        return {
            label: Landscape(
                settings=plane["settings"],
                **{name: _from_json(plane[name]) for name in _ARRAYS},
            )
            for label, plane in json.loads(path.read_text())[
                "landscapes"
            ].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise errors.DataError(f"{path} is damaged: delete it.") from error


def _is_of(path: pathlib.Path, names: Sequence[str]) -> bool:
    """Whether a file has the landscapes of these runs."""
    try:
        return json.loads(path.read_text())["runs"] == names
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _to_json(values: np.ndarray) -> list:
    """Returns nested lists; JSON has no infinity, which becomes null."""
    content = values.astype(object)
    content[~np.isfinite(values)] = None
    return content.tolist()


def _from_json(values: list) -> np.ndarray:
    array = np.array(values, np.float64)  # null becomes NaN
    return np.where(np.isnan(array), np.inf, array)
