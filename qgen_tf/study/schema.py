"""The columns of records: type, unit and meaning of each."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from qgen_tf import errors
from qgen_tf.study.measure_units import MEASURES

TEXT, COUNT, NUMBER, FLAG = "text", "count", "number", "flag"

# A count is a whole number that is never missing. What is missing elsewhere is
# NaN; of a flag it is NA.
DTYPES: dict[str, Any] = {
    TEXT: pd.StringDtype(na_value=np.nan),
    COUNT: np.dtype(np.int64),
    NUMBER: np.dtype(np.float64),
    FLAG: pd.BooleanDtype(),
}
_ARROW_TYPES = {
    TEXT: pa.string(),
    COUNT: pa.int64(),
    NUMBER: pa.float64(),
    FLAG: pa.bool_(),
}
# of each, what pandas.api.types.infer_dtype says
_NUMERIC = {"integer", "floating", "mixed-integer-float"}
_INFERRED = {
    TEXT: {"string"},
    COUNT: _NUMERIC,
    NUMBER: _NUMERIC,
    FLAG: {"boolean"},
}
_FLAGS = {"True": True, "False": False}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of records.

    Attributes:
      name: of the column.
      kind: "text", "count" (a whole number), "number" or "flag".
      unit: such as "points" or "nats"; "" if there is none.
      meaning: in a phrase.
    """

    name: str
    kind: str
    unit: str
    meaning: str


# arguments of qgen_tf.models.MODELS; a model without one has NaN
MODEL_ARGUMENTS = (
    Column("width", NUMBER, "channels", "of the model or its first stage"),
    Column("depth", NUMBER, "", "number of blocks, or of layers"),
    Column("dropout", NUMBER, "", "share of features dropped in training"),
    Column("drop_path", NUMBER, "", "share of branches dropped in training"),
    Column("patch_size", NUMBER, "pixels", "side of a token"),
    Column("num_heads", NUMBER, "", "attention heads"),
    Column("window_size", NUMBER, "tokens", "side of an attention window"),
    Column("alpha", NUMBER, "", "factor of the channels"),
    Column("stem", TEXT, "", "first layers: cifar or imagenet"),
)

_IDENTITY = (
    Column("run", TEXT, "", "folder of the run"),
    Column("name", TEXT, "", "of the config"),
    Column("twin_of", TEXT, "", "folder of the float model it started from"),
    Column("dataset", TEXT, "", "name of the data set"),
    Column("model", TEXT, "", "key of qgen_tf.models.MODELS"),
    *MODEL_ARGUMENTS,
    Column("learning_rate", NUMBER, "", "peak, of the float model"),
    Column("weight_decay", NUMBER, "", "of kernels, decoupled"),
    Column("batch_size", COUNT, "examples", "of a step of training"),
    Column("optimizer", TEXT, "", "key of the optimizer"),
    Column("augmentation", TEXT, "", "such as flip+crop4, or none"),
    Column("seed", COUNT, "", "of initial weights, data order, augmentation"),
    Column("stop_at_loss", NUMBER, "nats", "training loss to reach; 0 = off"),
    Column("num_train", COUNT, "examples", "of the training set"),
    Column("num_test", COUNT, "examples", "of the test set"),
    Column("parameters", COUNT, "", "number of parameters"),
    Column("quantizer", TEXT, "", "its key; a float model has none"),
    Column("bits", TEXT, "", "float, or of weights and activations: w4a8"),
    Column("weight_bits", COUNT, "bits", "of weights; 32 = float"),
    Column("activation_bits", COUNT, "bits", "of activations; 32 = float"),
    Column("epochs", COUNT, "epochs", "that were trained"),
    Column("stopped_at_loss", NUMBER, "nats", "training loss that was reached"),
)


def _interval(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, NUMBER, unit, meaning),
        Column(f"{name}_low", NUMBER, unit, f"{meaning}: 95 % interval from"),
        Column(f"{name}_high", NUMBER, unit, f"{meaning}: 95 % interval to"),
    )


def _outcomes(prefix: str, whose: str) -> tuple[Column, ...]:
    return (
        *(
            Column(f"{prefix}{split}_{what}", NUMBER, unit, f"{whose}, {split}")
            for what, unit in (("accuracy", "points"), ("loss", "nats"))
            for split in ("train", "test")
        ),
        *_interval(
            f"{prefix}gap", "points", f"{whose}, accuracy on train minus test"
        ),
        *_interval(
            f"{prefix}loss_gap", "nats", f"{whose}, loss on train minus test"
        ),
    )


_RESULTS = (
    *_outcomes("", "trained model"),
    *_outcomes("file_", "deployed file"),
    *_interval("gap_difference", "points", "gap, file minus model"),
    *_interval("loss_gap_difference", "nats", "loss gap, file minus model"),
    Column("verdict", TEXT, "", "whether file and model have the same gap"),
    Column("margin", NUMBER, "points", "difference that counts as none"),
    Column("equivalence_p_value", NUMBER, "", "of gaps within the margin"),
    Column("mcnemar_p_value_train", NUMBER, "", "file against model, train"),
    Column("mcnemar_p_value_test", NUMBER, "", "file against model, test"),
    Column("argmax_agreement", NUMBER, "points", "same class, test examples"),
    Column("max_steps", NUMBER, "steps", "of logits, file and model"),
    Column("max_steps_deployed", NUMBER, "steps", "file and deployed network"),
    Column("kilobytes", NUMBER, "kB", "size of the file"),
    Column("latency_ms", NUMBER, "ms", "median for an image, one thread"),
)


def _of_measure(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, NUMBER, unit, meaning),
        Column(f"{name}_standard_error", NUMBER, unit, "Monte-Carlo error"),
        Column(f"{name}_converged", FLAG, "", "whether its search converged"),
    )


_COSTS = (
    Column("noise_power", NUMBER, "weight^2", "of rounding the weights"),
    Column("predicted_noise_power", NUMBER, "weight^2", "of uniform noise"),
    *(
        Column(f"seconds_{stage}", NUMBER, "s", f"time of the stage: {stage}")
        for stage in ("train", "measure", "export", "corruptions")
    ),
)

# of every model; beside these come measures and costs, which vary
ALWAYS = (*_IDENTITY, *_RESULTS)
COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        *ALWAYS,
        *(
            column
            for name, (unit, meaning) in MEASURES.items()
            for column in _of_measure(name, unit, meaning)
        ),
        *_COSTS,
    )
}
_PLACES = {name: place for place, name in enumerate(COLUMNS)}

_CORRUPTED = re.compile(
    r"(?P<file>file_)?corrupted_(?P<kind>\w+)_(?P<severity>[1-5])_"
    r"(?P<what>accuracy|loss|gap|loss_gap)"
)


def describe(name: str) -> Column:
    """Returns type, unit and meaning of a column.

    Those of corrupted test sets are `[file_]corrupted_<kind>_<severity>_` and
    then `accuracy`, `loss`, `gap` or `loss_gap`.

    Raises:
      DataError: records have no such column.
    """
    if name in COLUMNS:
        return COLUMNS[name]
    match = _CORRUPTED.fullmatch(name)
    if match is None:
        raise errors.DataError(
            f"records have no column {name!r}: drop it, or pass a file that "
            "qgen-report wrote."
        )
    whose = "deployed file" if match["file"] else "trained model"
    what = match["what"]
    return Column(
        name,
        NUMBER,
        "nats" if "loss" in what else "points",
        f"{whose}, {'train minus ' * what.endswith('gap')}test with "
        f"{match['kind']} of severity {match['severity']}",
    )


def fit(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns records with the types and in the order of the schema.

    Raises:
      DataError: a column is unknown or there twice, or a value is not of its
        type.
    """
    columns = sorted(_described(frame), key=_place)
    return pd.DataFrame(
        {column.name: _typed(frame[column.name], column) for column in columns},
        index=pd.RangeIndex(len(frame)),
    )


def parse(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns records of which every value is text, as `fit` does.

    Raises:
      DataError: a column is unknown or there twice, or a value cannot be read.
    """
    parsed = {}
    for column in _described(frame):
        values = frame[column.name].astype(object)
        try:
            if column.kind in (COUNT, NUMBER):
                values = values.astype(DTYPES[column.kind])
            elif column.kind == FLAG:
                values = values.map(_FLAGS.__getitem__, na_action="ignore")
        except (ValueError, KeyError, OverflowError) as error:
            raise _wrong(column, error) from None
        parsed[column.name] = values
    return fit(pd.DataFrame(parsed))


def _described(frame: pd.DataFrame) -> list[Column]:
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise errors.DataError(
            f"the records have two columns {name!r}: drop one of them."
        )
    return [describe(str(name)) for name in frame]


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Returns records as a table whose fields have unit and meaning."""
    columns = [describe(name) for name in frame]
    fields = [
        pa.field(
            column.name,
            _ARROW_TYPES[column.kind],
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in columns
    ]
    return pa.Table.from_pandas(
        frame, schema=pa.schema(fields), preserve_index=False
    )


def _place(column: Column) -> tuple[float, str]:
    """Corrupted test sets come before the times, by name."""
    last = _PLACES["seconds_train"] - 0.5
    return _PLACES.get(column.name, last), column.name


def _typed(values: pd.Series, column: Column) -> pd.Series:
    found = pd.api.types.infer_dtype(values, skipna=True)
    missing = values.isna().to_numpy()
    if not (missing.all() or found in _INFERRED[column.kind]):
        raise _wrong(column, f"{found} is found")
    if column.kind == COUNT and missing.any():
        raise _wrong(column, "a value is missing")
    if column.kind == COUNT and not (values % 1 == 0).all():
        raise _wrong(column, "a value is not whole")
    # pandas takes only its own types of text for "is missing"
    typed = values.astype(object).where(~missing, None)
    try:
        typed = typed.astype(DTYPES[column.kind]).reset_index(drop=True)
    except OverflowError as error:
        raise _wrong(column, error) from None
    return typed.mask(typed == "") if column.kind == TEXT else typed


def _wrong(column: Column, reason: object) -> errors.DataError:
    what = {TEXT: "text", COUNT: "whole numbers"}.get(
        column.kind, f"{column.kind}s"
    )
    return errors.DataError(
        f"column {column.name!r} of the records must hold {what}, but "
        f"{reason}: mend it, or write the file again with qgen-report."
    )
