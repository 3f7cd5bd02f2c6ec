"""The notebooks run as they stand, and are kept without their output."""

import nbclient
import nbformat
import pytest

from tests import imports

FOLDER = imports.REPOSITORY / "examples"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def _read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_output(name):
    notebook = _read(name)
    nbformat.validate(notebook)
    for cell in _code(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        assert max(map(len, cell.source.splitlines())) <= 80


@pytest.mark.slow
def test_ones_own_model_is_quantized_and_verified(tmp_path):
    notebook = _read("quantize_your_model.ipynb")
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises what a cell raises
    *_, verdict = _code(notebook)
    (output,) = verdict.outputs
    assert output.text.endswith("The same gap? same\n")
    assert not list(tmp_path.iterdir())
