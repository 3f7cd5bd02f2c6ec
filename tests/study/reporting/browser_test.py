"""The report in a browser: it is whole, it sorts, it fits a phone, it dims."""

import re
import shutil

import pandas as pd
import pytest

from qgen_tf.study.reporting import report
from tests.study.reporting import report_records

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    frame = pd.concat(
        [
            report_records.records(num_floats=3),
            report_records.records(num_floats=2, stop_at_loss=0.2, seed=1),
        ],
        ignore_index=True,
    )
    return report.write(frame, [], tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(address)
    yield page
    page.close()


def test_nothing_goes_wrong_and_nothing_is_fetched(browser, address):
    page = browser.new_page()
    trouble, fetched = [], []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(request.url))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    for _ in range(2):
        page.evaluate(
            "document.querySelectorAll('th button').forEach((b) => b.click())"
        )
    assert trouble == []
    assert fetched[0] == address
    assert all(url.startswith("data:") for url in fetched[1:])
    page.close()


def test_every_image_is_there(page):
    widths = page.evaluate(
        "Promise.all(Array.from(document.images, (image) =>"
        " image.decode().then(() => image.naturalWidth)))"
    )
    assert len(widths) > 30
    assert min(widths) > 0


def _column(table, index):
    return [
        text.strip()
        for text in table.locator(
            f"tbody td:nth-child({index + 1})"
        ).all_text_contents()
    ]


def _number(text):
    return float(re.match(r"[-+.\de]+", text).group())


def test_a_click_on_a_heading_sorts_by_number(page):
    table = page.locator("section:has(#gap) table").first
    headings = table.locator("th")
    index = headings.all_text_contents().index("model: gap [points]")
    before = _column(table, index)
    values = [_number(text) for text in before]
    assert values != sorted(values)
    heading = headings.nth(index)
    assert heading.get_attribute("aria-sort") is None
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [_number(text) for text in _column(table, index)] == sorted(values)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    falling = sorted(values, reverse=True)
    assert [_number(text) for text in _column(table, index)] == falling
    # rows stay whole
    assert sorted(_column(table, index)) == sorted(before)
    headings.nth(0).locator("button").click()
    assert heading.get_attribute("aria-sort") is None


def test_numbers_sort_as_numbers_and_blanks_come_last(page):
    page.evaluate(
        """() => {
        const rows = ["10", "", "-2", "9 ± 1", "1e-3"];
        document.querySelector("tbody").innerHTML =
          rows.map((text) => `<tr><td>${text}</td></tr>`).join("");
        document.querySelector("th").className = "number"; }"""
    )
    table = page.locator("table").first
    button = table.locator("th button").first
    button.click()
    assert _column(table, 0) == ["-2", "1e-3", "9 ± 1", "10", ""]
    button.click()
    assert _column(table, 0) == ["10", "9 ± 1", "1e-3", "-2", ""]


def test_the_keyboard_sorts_as_well(page):
    heading = page.locator("th").first
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"


def test_numbers_stand_to_the_right(page):
    cells = page.locator("td.number")
    assert cells.count() > 100
    for cell in (cells.first, cells.last):
        align = cell.evaluate("cell => getComputedStyle(cell).textAlign")
        assert align == "right"


@pytest.mark.parametrize("width", [320, 390, 768, 1200, 1500])
def test_the_page_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    # also what is folded
    page.evaluate(
        "document.querySelectorAll('details').forEach((d) => d.open = true)"
    )
    found = page.evaluate("document.documentElement.scrollWidth")
    assert found <= width


def _brightness(color):
    """Returns the mean of red, green and blue of "rgb(20, 24, 29)"."""
    channels = [int(part) for part in re.findall(r"\d+", color)[:3]]
    assert len(channels) == 3, color
    return sum(channels) / 3


def test_dark_is_dark_and_light_is_light(page):
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found[scheme] = [
            _brightness(
                page.evaluate(f"getComputedStyle(document.body).{name}")
            )
            for name in ("backgroundColor", "color")
        ]
    (light_paper, light_ink), (dark_paper, dark_ink) = found.values()
    assert light_paper > 240 and light_ink < 60
    assert dark_paper < 40 and dark_ink > 200


_INK_OF_FIRST_FIGURE = """async () => {
  const image = document.images[0];
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let darkest = 255, brightest = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] < 250) continue;
    const mean = (pixels[at] + pixels[at + 1] + pixels[at + 2]) / 3;
    darkest = Math.min(darkest, mean); brightest = Math.max(brightest, mean);
  }
  return [darkest, brightest];
}"""


def test_figures_follow_the_scheme(browser, address):
    found = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        found[scheme] = page.evaluate(_INK_OF_FIRST_FIGURE)
        page.close()
    assert found["light"][0] < 60 and found["light"][1] < 200
    assert found["dark"][0] > 60 and found["dark"][1] > 200


def test_contents_lead_to_their_sections(page):
    link = page.locator("nav a", has_text="Flatness")
    link.click()
    assert page.url.endswith("#flatness")
    page.wait_for_function(
        "document.getElementById('flatness').getBoundingClientRect().top < 100"
    )


def test_a_reader_without_scripts_sees_it_all(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    assert page.locator("th button").count() == 0
    assert page.locator("th").first.inner_text() != ""
    page.close()
