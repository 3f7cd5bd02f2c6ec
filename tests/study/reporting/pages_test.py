"""Pages: tables, plots, and that nothing is fetched."""

import base64

import jinja2
import numpy as np
import pandas as pd
import pytest

from qgen_tf.study.reporting import figures, pages


def test_numbers_have_four_digits_and_stand_to_the_right():
    frame = pd.DataFrame(
        {
            "bits": ["float", "w2a8"],
            "loss": [0.123456, np.nan],
            "gap": ["-1.5 ± 0.2", "+2.0"],
            "count": [3, 12345],
            "converged": [True, False],
        }
    )
    page = pages.table(frame)
    assert '<th scope="col" class="number">loss</th>' in page
    assert '<th scope="col" class="">bits</th>' in page
    assert '<td class="number">0.1235</td>' in page
    assert '<td class="number"></td>' in page
    assert '<td class="number">-1.5 ± 0.2</td>' in page
    assert '<td class="number">12345</td>' in page
    assert '<td class="">yes</td>' in page
    assert '<td class="">no</td>' in page


def test_a_column_of_nothing_is_left_out():
    frame = pd.DataFrame(
        {
            "known": [1.0, np.nan],
            "unknown": [np.nan, None],
            "missing": pd.array([pd.NA, pd.NA], "boolean"),
            "empty": ["", ""],
        }
    )
    page = pages.table(frame)
    assert "known" in page
    for name in ("unknown", "missing", "empty"):
        assert f">{name}<" not in page


def test_a_long_text_takes_several_lines():
    page = pages.table(pd.DataFrame({"reason": ["long " * 20, "short"]}))
    assert page.count('<td class="prose">') == 2


def test_what_is_shown_is_no_markup():
    page = pages.table(pd.DataFrame({"<b>": ["<script>alert(1)</script>"]}))
    assert "<script>" not in page and "<b>" not in page
    page = pages.plot("no <i>figure</i>", "")
    assert page == '<p class="note">no &lt;i&gt;figure&lt;/i&gt;</p>'


def test_figures_have_one_caption_and_one_legend():
    drawn = [figures.panel(title)[0] for title in "ab"]
    page = pages.plot(drawn, "What it shows. Look at it.", {"w4a8": "#123456"})
    assert page.count("<img") == 2
    assert page.count('alt="What it shows"') == 2
    assert page.count("<figcaption>What it shows. Look at it.<") == 1
    assert page.count("background: #123456") == 1
    assert 'class="panels"' in page
    wide = pages.plot(figures.panels(2)[0], "Wide.")
    assert 'class="scroll wide"' in wide


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        pages.render("table.html")


def _uri():
    figure, axis = figures.panel("title")
    axis.plot([1, 2], [3, 4], color="black")
    return figures.data_uri(figure)


def test_a_figure_takes_the_color_of_the_text():
    kind, _, encoded = _uri().partition(",")
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(encoded).decode()
    assert "prefers-color-scheme: dark" in svg
    assert "stroke: currentColor" in svg
    assert "#000000" not in svg and "#ffffff" not in svg
    assert "DejaVu" not in svg


def test_a_figure_that_is_drawn_again_is_the_same():
    assert _uri() == _uri()
