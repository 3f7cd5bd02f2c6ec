"""HTML pages that hold all they show: they open without a network."""

from __future__ import annotations

import functools
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import matplotlib.figure
import pandas as pd

from qgen_tf.study.reporting import figures

_NUMBER = re.compile(r"[-+]?\.?\d")
_WIDE = 5.0  # inches, from which a figure is scrolled on a phone, not shrunk
_LONG = 48  # letters, from which a text takes several lines


def render(template: str, **values: Any) -> markupsafe.Markup:
    """Returns a template of this folder, filled in.

    Raises:
      jinja2.UndefinedError: the template uses a value that is not given.
    """
    return markupsafe.Markup(  # noqa: S704, the environment escapes values
        _environment().get_template(template).render(values)
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("qgen_tf.study.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def plot(
    drawn: matplotlib.figure.Figure | Sequence[matplotlib.figure.Figure] | str,
    caption: str,
    colors: Mapping[str, str] | None = None,
) -> markupsafe.Markup:
    """Returns figures, inside of the page, with one caption.

    Args:
      drawn: a figure, or several that stand side by side where there is room;
        or the sentence that says why there is none.
      caption: what is to be seen; its first sentence stands for the figures
        where they cannot be.
      colors: label to color of what all of them show, explained above them.
    """
    if isinstance(drawn, str):
        return markupsafe.Markup('<p class="note">{}</p>').format(drawn)
    several = [drawn] if isinstance(drawn, matplotlib.figure.Figure) else drawn
    return render(
        "plot.html",
        images=[figures.data_uri(figure) for figure in several],
        is_wide=several[0].get_figwidth() > _WIDE,
        caption=caption,
        alternative=caption.split(". ")[0],
        colors=colors or {},
    )


def table(frame: pd.DataFrame) -> markupsafe.Markup:
    """Returns a frame without its index, sorted by a click on a heading.

    Numbers have four digits and, as texts that start with one, stand to the
    right. What is missing is left blank, and a column of nothing else out.
    """
    columns = {name: [text(value) for value in frame[name]] for name in frame}
    known = {name: texts for name, texts in columns.items() if any(texts)}
    return render(
        "table.html",
        headings=[(name, _kind(texts)) for name, texts in known.items()],
        rows=zip(*known.values(), strict=True),
    )


def text(value: Any) -> str:
    """Returns a cell of a table: numbers have four digits, NaN none."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if pd.isna(value):
        return ""
    if isinstance(value, numbers.Real) and not isinstance(
        value, numbers.Integral
    ):
        return f"{value:.4g}"
    return str(value)


def _kind(texts: Sequence[str]) -> str:
    """Returns how a column is set: as numbers, as prose or as words."""
    known = [text for text in texts if text]
    if known and all(map(_NUMBER.match, known)):
        return "number"
    return "prose" if max(map(len, known), default=0) > _LONG else ""
