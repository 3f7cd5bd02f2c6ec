"""Runs the bundle of a trained run on an emulated 64-bit Arm machine."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from absl import flags

from qgen_tf import errors
from qgen_tf.cli import program

MANUAL = """\
Makes the bundle of a trained run, runs it under QEMU with Debian's Python for
64-bit Arm and ai-edge-litert's wheel for it, and holds the result against the
trained model. Needs a Debian machine with

  apt-get install qemu-user-static mmdebstrap

and, the first time, the network; 300 MB of disk. It takes no root and changes
nothing outside of its folder. Times and memory are those of the emulator.

Example:
  python -m benchmarks.device_arm64 --run_dir=runs/quickstart-w4a8-0123abcd
  python -m benchmarks.device_arm64 --cpu=cortex-a76 --num_examples=500 \\
    --run_dir=runs/cifar10_resnet18-w4a8-0123abcd

Exit status: 0 the gap is the same, 1 it is different, 2 more examples would
tell, or the machine cannot.
"""

_RUN_DIR = flags.DEFINE_string("run_dir", None, "written by qgen-train.")
_FOLDER = flags.DEFINE_string(
    "folder", "runs/device-arm64", "of the Arm system and of results; kept."
)
_CPU = flags.DEFINE_string(
    "cpu",
    "cortex-a72",
    "that QEMU emulates: cortex-a72 is that of a Raspberry Pi 4, cortex-a76 "
    "that of a Raspberry Pi 5.",
)
_STORAGE = flags.DEFINE_enum(
    "storage", "int8", ["int8", "int4", "int2"], "of weights."
)
_NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 0, "of each set; 0 takes all.", lower_bound=0
)
_MARGIN = flags.DEFINE_float(
    "margin", 0.5, "largest difference that counts as none, in points."
)
_HOLDERS = (_RUN_DIR, _FOLDER, _CPU, _STORAGE, _NUM_EXAMPLES, _MARGIN)

_SUITE, _PYTHON = "bookworm", "3.11"
_PACKAGES = "python3,libstdc++6"
_WHEELS = ("numpy", "ai-edge-litert")
# what wheels for Arm may ask of that system's C library
_PLATFORMS = ("2_34", "2_28", "2_27", "2_17")
_SITE = "opt/site-packages"
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")

# LiteRT reads what kind of cores there are and ends on those of another
# architecture. QEMU shows the file in the system's folder instead.
_CORE = """\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""

_STATUS = {"same": 0, "different": 1, "cannot tell": 2}


def _main() -> None:
    run_dir = program.require(_RUN_DIR)
    emulator = next(filter(None, map(shutil.which, _EMULATORS)), None)
    if emulator is None:
        raise errors.ExportError(
            "there is no qemu-aarch64 on this machine: apt-get install "
            "qemu-user-static mmdebstrap."
        )
    folder = pathlib.Path(_FOLDER.value).resolve()
    system = _system(folder / "system")
    from export import run_on_device
    from qgen_tf import training
    from qgen_tf.study import bundling, comparison, tables

    training.make_deterministic(seed=0)
    name = pathlib.Path(run_dir).resolve().name
    result = folder / f"{name}-{_STORAGE.value}-{_CPU.value}.json"
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=folder) as scratch:
        bundle = pathlib.Path(scratch) / name
        bundling.bundle(
            run_dir,
            bundle,
            storage=_STORAGE.value,
            num_examples=_NUM_EXAMPLES.value,
        )
        _run_bundle(emulator, system, bundle)
        os.replace(bundle / run_on_device.RESULT_FILE, result)
    record = comparison.compare(run_dir, result, margin=_MARGIN.value)
    print(tables.device_text(record))
    print(result)
    sys.exit(_STATUS[record["verdict"]])


def _system(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of an Arm system with Python, made if it is not."""
    if folder.exists():
        return folder
    if not shutil.which("mmdebstrap"):
        raise errors.ExportError(
            "mmdebstrap is not on this machine: apt-get install mmdebstrap."
        )
    new = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(new, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Debian {_SUITE} for arm64 into {folder}", flush=True)
    try:
        _install(new)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _install(folder: pathlib.Path) -> None:
    """Fills the folder of an Arm system."""
    _call(
        "make an Arm system",
        *("mmdebstrap", "--mode=chrootless", "--variant=extract"),
        *("--architectures=arm64", f"--include={_PACKAGES}"),
        *(_SUITE, str(folder)),
    )
    _call(
        "install the wheels for Arm",
        *(sys.executable, "-m", "pip", "install", "--quiet"),
        *("--python-version", _PYTHON, "--only-binary=:all:"),
        *(f"--platform=manylinux_{version}_aarch64" for version in _PLATFORMS),
        *("--target", str(folder / _SITE), *_WHEELS),
    )
    cores = [_CORE.format(index=index) for index in range(os.cpu_count() or 1)]
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/cpuinfo").write_text("".join(cores))


def _run_bundle(
    emulator: str, system: pathlib.Path, bundle: pathlib.Path
) -> None:
    # -L: files that are in the system's folder are taken from there
    command = [emulator, "-L", system, system / "usr/bin/python3"]
    environment = {
        "PATH": "/usr/bin",
        "PYTHONPATH": str(system / _SITE),
        "QEMU_CPU": _CPU.value,
    }
    print(f"run_on_device.py on an emulated {_CPU.value}", flush=True)
    status = subprocess.call(
        [*command, bundle / "run_on_device.py"], env=environment
    )
    if status:
        raise errors.ExportError(
            f"run_on_device.py ended with status {status} under {emulator}; "
            "its last lines say why."
        )


def _call(purpose: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        said = next((x for x in lines if re.match("E:|ERROR:", x)), lines[-1])
        raise errors.ExportError(f"cannot {purpose}: {said}")


if __name__ == "__main__":
    program.run(_main, MANUAL, _HOLDERS)
