"""HTML pages that hold all they show: they open without a network."""

from __future__ import annotations

from typing import Any

import jinja2
import markupsafe
import matplotlib.figure
import pandas as pd

from qgen_tf.study import figures


def render(template: str, **values: Any) -> str:
    """Returns the page of a template of this folder.

    Raises:
      jinja2.UndefinedError: the template uses a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qgen_tf.study", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def plot(figure: matplotlib.figure.Figure, caption: str) -> markupsafe.Markup:
    """Returns a figure, inside of the page, with its caption."""
    return markupsafe.Markup(
        '<figure><img alt="{0}" src="{1}"><figcaption>{0}</figcaption></figure>'
    ).format(caption, figures.data_uri(figure))


def table(frame: pd.DataFrame) -> markupsafe.Markup:
    """Returns a frame without its index; numbers have four digits."""
    return markupsafe.Markup(
        frame.to_html(
            index=False, border=0, na_rep="", float_format="{:.4g}".format
        )
    )
