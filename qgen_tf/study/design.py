"""The design of a study: which models are trained."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from qgen_tf import errors, training
from qgen_tf.config import check_values
from qgen_tf.study import distorting, measuring

_MOST_COMBINATIONS = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A model that a study trains, measures and exports.

    Attributes:
      config: of the model.
      path: of its run directory.
      parent: run directory of the float model that it is fine-tuned from; None
        for a float model.
    """

    config: ml_collections.ConfigDict
    path: pathlib.Path
    parent: pathlib.Path | None


def trials(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> list[Trial]:
    """Returns every trial, each float model followed by its twins.

    Twins share seed, data order and, through the float model that they are
    fine-tuned from, initial weights: their comparison is paired.

    Args:
      config: `config.sweep` says which float models there are, `config.twins`
        which twins each of them has.
      workdir: folder of run directories.

    Raises:
      UserError: a setting of any trial is wrong.
    """
    check_values(config)
    measuring.names_of(config.measures)
    distorting.check(config.corruptions, config.dataset)
    planned: dict[pathlib.Path, Trial] = {}
    for chosen in _float_configs(config):
        parent = training.run_path(workdir, chosen)
        for one in (chosen, *_twins(chosen)):
            training.check(one)
            path = training.run_path(workdir, one)
            if path in planned:
                raise errors.ConfigError(
                    f"the sweep has the model {path.name} twice: remove the "
                    "value or the twin that is repeated."
                )
            planned[path] = Trial(one, path, None if one is chosen else parent)
    return list(planned.values())


def _float_configs(
    config: ml_collections.ConfigDict,
) -> list[ml_collections.ConfigDict]:
    """Returns the config of each float model, in random order."""
    fields = [_axis(config, axis) for axis in config.sweep.axes]
    total = math.prod(len(values) for _, values in fields)
    if total > _MOST_COMBINATIONS:
        raise errors.ConfigError(
            f"sweep.axes has {total} combinations, of at most "
            f"{_MOST_COMBINATIONS}: name fewer values."
        )
    combinations = list(itertools.product(*(values for _, values in fields)))
    first, number = config.sweep.first, config.sweep.num_combinations
    if not first + number <= len(combinations) > first:
        raise errors.ConfigError(
            f"sweep.first is {first} and sweep.num_combinations {number}, but "
            f"there are {len(combinations)} combinations."
        )
    # what an interrupted sweep has done is then a sample of the whole
    order = np.random.default_rng(config.sweep.seed).permutation(
        len(combinations)
    )
    last = first + number if number else None
    names = [name for name, _ in fields]
    return [
        _with(config, dict(zip(names, combinations[index], strict=True)))
        for index in order[first:last]
    ]


def _axis(
    config: ml_collections.ConfigDict, axis: Any
) -> tuple[str, Sequence[Any]]:
    """Returns a field and its values."""
    try:
        name, values = axis
        if isinstance(values, str):  # whose letters are no values
            raise TypeError
        values = tuple(values)
        part, field = _place(config.copy_and_resolve_references(), name)
        for value in (values[0], *values):
            part[field] = value  # of the type that it has
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        raise errors.ConfigError(
            f"sweep.axes has {axis!r}: write a field of the config and its "
            "values, such as ('training.learning_rate', (1e-3, 4e-3))."
        ) from None
    return name, values


def _with(
    config: ml_collections.ConfigDict, values: dict[str, Any]
) -> ml_collections.ConfigDict:
    changed = training.float_config(config)
    for path, value in values.items():
        part, field = _place(changed, path)
        part[field] = value
    return changed


def _place(
    config: ml_collections.ConfigDict, path: str
) -> tuple[ml_collections.ConfigDict, str]:
    """Returns the section of a field, and its name there."""
    *sections, field = path.split(".")
    for name in sections:
        config = config[name]
    if field not in config:
        raise KeyError(path)  # it would have no effect
    return config, field


def _twins(
    config: ml_collections.ConfigDict,
) -> list[ml_collections.ConfigDict]:
    for bits in config.twins:
        if (
            not isinstance(bits, tuple | list)
            or len(bits) != 2
            or not all(isinstance(bit, int) for bit in bits)
        ):
            raise errors.ConfigError(
                f"twins has {bits!r}: write pairs (weight_bits, "
                "activation_bits), such as ((8, 8), (4, 8))."
            )
    return [training.with_bits(config, *bits) for bits in config.twins]
