"""The README's example runs as it stands."""

import re

import pytest

from tests import imports


@pytest.mark.slow
def test_the_example_runs(capsys):
    readme = (imports.REPOSITORY / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    output = capsys.readouterr().out
    assert "weight_bits" in output
    assert "MeasureResult(name='average_sharpness'" in output
    assert "GeneralizationGap(loss=Interval(" in output
