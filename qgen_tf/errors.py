"""The errors that a user can cause, each one sentence: what, where, what to do.

Command-line programs print a `UserError` without a stack trace and exit with
status 2.
"""

from __future__ import annotations

import math
import numbers
import typing


class UserError(Exception):
    """A mistake that the user can mend; the message says how."""


class ConfigError(UserError):
    """A field or value of a config is wrong."""


class DataError(UserError):
    """A data set is missing, empty or malformed."""


class ModelError(UserError):
    """A model has a structure that cannot be quantized or exported."""


class RunDirectoryError(UserError):
    """A run directory is missing, unfinished or belongs to another config."""


class ExportError(UserError):
    """A network cannot be converted, or the file is not what was asked for."""


class StackError(UserError):
    """TensorFlow, Keras and the like are in versions or an order that fail."""


def is_finite(value: typing.Any) -> bool:
    """Whether a setting is a finite number: no text, no bool, not NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    number: typing.Any = value  # Real has no order
    return -math.inf < number < math.inf
