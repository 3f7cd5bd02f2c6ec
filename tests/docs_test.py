"""The API reference is built without a warning, and leaves no name out."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

import export
import qgen_tf
from qgen_tf import errors, measures, models
from qgen_tf.quantization import QUANTIZERS
from tests import imports

pytestmark = pytest.mark.slow

PACKAGES = (
    "export",
    "qgen_tf.data",
    "qgen_tf.measures",
    "qgen_tf.quantization",
    "qgen_tf.study",
    "qgen_tf.training",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Returns name of a page -> its HTML."""
    folder = tmp_path_factory.mktemp("api")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"),
            *("-d", folder / "doctrees", "docs/api", folder / "html"),
        ],
        cwd=imports.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    found = {path.stem: path for path in (folder / "html").glob("*.html")}
    return {name: path.read_text() for name, path in found.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_described(pages, package):
    names = importlib.import_module(package).__all__
    page = pages[package.removeprefix("qgen_tf.")]
    missing = [name for name in names if f'id="{package}.{name}"' not in page]
    assert names and not missing


def test_names_of_the_package_itself_lead_to_their_descriptions(pages):
    links = re.findall(
        r'<a [^>]*href="(\w+\.html)#(?:module-)?([\w.]+)"', pages["qgen_tf"]
    )
    assert {link.rpartition(".")[2] for _, link in links} >= set(
        qgen_tf.__all__
    )
    for page, link in links:
        assert re.search(
            rf'id="(module-)?{re.escape(link)}"',
            pages[page.removesuffix(".html")],
        )


def test_what_is_chosen_by_name_is_listed(pages):
    for names, page in (
        (measures.MEASURES, "measures"),
        (QUANTIZERS, "quantization"),
    ):
        for name in names:
            assert re.search(rf"\b{name}\b", pages[page]), name
    for name in models.MODELS:
        assert f'id="qgen_tf.models.{name}"' in pages["models"]


def test_every_error_is_described(pages):
    for kind in (errors.UserError, *errors.UserError.__subclasses__()):
        assert f'id="qgen_tf.errors.{kind.__name__}"' in pages["errors"]


def test_formulas_stand_as_they_are_written(pages):
    (formula,) = re.findall(
        r"^ +(L_D\(w\) <= .*)\n",
        inspect.getdoc(measures.generalization_bound),
        re.MULTILINE,
    )
    shown = formula.replace("<", "&lt;")
    text = re.sub(r"</?span.*?>", "", pages["measures"])
    assert f"<pre>{shown}\n</pre>" in text


def test_the_packages_are_all_there():
    documented = {*PACKAGES, "qgen_tf.models"}
    for name in qgen_tf.__all__:
        if inspect.ismodule(getattr(qgen_tf, name)):
            assert f"qgen_tf.{name}" in documented
    assert export.__name__ in documented
