"""Studies: many trials, their records and the report.

`qgen_tf.study.load` gives the records of a study as a pandas frame. Importing
this package is cheap: the function is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qgen_tf.study.records import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qgen_tf.study import records

    return getattr(records, name)
