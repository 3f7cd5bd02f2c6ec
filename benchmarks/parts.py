"""The parts of a run of all benchmarks, and how one is measured."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from benchmarks import machine
from benchmarks.rows import write_json

# part -> its arguments, and those of a quick run
COMMANDS = {
    "startup": (
        ["benchmarks.startup", "--rounds=5"],
        ["benchmarks.startup", "--rounds=2"],
    ),
    "qat_overhead": (
        ["benchmarks.qat_overhead", "--batch_size=128", "--rounds=15"],
        ["benchmarks.qat_overhead", "--batch_size=32", "--rounds=5"],
    ),
    "measures": (
        ["benchmarks.measures"],
        ["benchmarks.measures", "--num_examples=256"],
    ),
    **{
        f"tflite_{model}": (
            [
                *("benchmarks.tflite_throughput", f"--model={model}"),
                *(f"--examples={examples}", "--rounds=9"),
            ],
            [
                *("benchmarks.tflite_throughput", f"--model={model}"),
                *(f"--examples={examples // 4}", "--rounds=5"),
                "--batch_sizes=16,64",
            ],
        )
        for model, examples in (
            ("nin", 16384),
            ("resnet20", 4096),
            ("mobilenet_v2", 1024),
        )
    },
    "input_pipeline": tuple(
        [
            *("benchmarks.input_pipeline", "--dataset=digits"),
            *("--enlarge=375", "--batch_size=16", f"--model={model}"),
            *sizes,
        ]
        for model, *sizes in (
            ("resnet50", "--steps=2", "--rounds=7"),
            ("resnet18", "--steps=1", "--rounds=3", "--stream_images=128"),
        )
    ),
    "norms": (
        ["benchmarks.norms", "--examples=64", "--rounds=9"],
        ["benchmarks.norms", "--examples=16", "--rounds=3"],
    ),
    "sweep_scaling": (
        ["benchmarks.sweep_scaling", "--trials=2", "--epochs=300"],
        [
            *("benchmarks.sweep_scaling", "--parts=many"),
            "--fake_trials=400",
        ],
    ),
}


def measure(name: str, command: list[str], folder: pathlib.Path) -> Any:
    """Returns what a part has found, run unless it was before.

    Args:
      name: of the part.
      command: arguments of Python.
      folder: of the results.

    Returns:
      What `rows.finish` wrote, with the command, the seconds it took and the
      cores that were busy before; None if it failed.
    """
    path = folder / f"{name}.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["command"] == command:
            return found
    print(f"\n{name}: python -m {' '.join(command)}", flush=True)
    scratch = folder / f"{name}.new"
    busy, begun = machine.busy_cores(), time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", *command, f"--output={scratch}"], check=False
    )
    if process.returncode:
        return None
    found = json.loads(scratch.read_text()) | {
        "command": command,
        "seconds": time.monotonic() - begun,
        "busy": busy,
    }
    write_json(path, found)
    scratch.unlink()
    return found
