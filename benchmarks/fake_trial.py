"""A trial that copies the results of another, with other numbers."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
from typing import Any

# of a finished run; weights and files are left away
_COPIED = (
    "train.json",
    "history.csv",
    "measures.json",
    "quantization.csv",
    "export/verification.json",
)


def run(argument: tuple[Any, pathlib.Path, pathlib.Path]) -> None:
    """Makes the run of a config.

    Args:
      argument: config, folder of run directories, the finished run to copy.
    """
    from qgen_tf.training import RunDirectory

    config, workdir, template = argument
    made = RunDirectory.create(workdir, config)
    (made.path / "export").mkdir(exist_ok=True)
    for name in _COPIED:
        shutil.copyfile(template / name, made.path / name)
    generator = random.Random(made.path.name)
    record = json.loads((template / "measures.json").read_text())
    for split in ("train", "test"):
        record[split]["accuracy"] *= generator.uniform(0.9, 1.0)
    record["gap"]["accuracy"]["value"] = (
        record["train"]["accuracy"] - record["test"]["accuracy"]
    )
    for result in record["measures"].values():
        result["value"] *= generator.uniform(0.5, 1.5)
    made.write_json("measures.json", record)
