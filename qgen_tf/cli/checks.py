"""What qgen_tf needs of a machine, check by check."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Callable

from packaging import requirements, specifiers

from qgen_tf import compat, errors

OK, WARNING, PROBLEM = STATUSES = ("ok", "warning", "problem")

# a study of small networks takes some; below the least, no run fits
_LITTLE_ROOM = 2.0
_LEAST_ROOM = 0.1
# where the driver of a GPU shows, on Linux and in WSL
_DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
      status: "ok"; "warning", where something is missing that not everybody
        needs; "problem", where something prevents work.
      text: what was found and, unless that is well, what to do.
    """

    status: str
    text: str


Check = Callable[[], Finding]


def checks(workdir: pathlib.Path) -> dict[str, Check]:
    """Returns name -> check, for a machine and a folder of run directories.

    A check may raise anything, or end the process that it runs in: see
    `examination.examine`.
    """
    return {
        "Python": python,
        "packages": packages,
        "Keras": legacy_keras,
        "GPU": gpu,
        "digits": digits,
        "CIFAR-10": cifar10,
        "Ray": ray,
        "LiteRT": litert,
        "workdir": functools.partial(room, workdir),
        "scikit-image": scikit_image,
        "Chromium": chromium,
    }


def python() -> Finding:
    """Is this Python one of those that were tried?"""
    version, supported = platform.python_version(), compat.SUPPORTED["python"]
    if version in specifiers.SpecifierSet(supported):
        return Finding(OK, version)
    return Finding(
        PROBLEM,
        f"{version} is unsupported: make an environment with one that is "
        f"{supported}.",
    )


def packages() -> Finding:
    """Are the packages there that qgen_tf declares, in versions that fit?"""
    try:
        declared = importlib.metadata.requires("qgen_tf") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            WARNING,
            "qgen_tf is not installed, so that nobody knows what it needs: "
            "run `pip install .` in its folder.",
        )
    needed = [
        requirement
        for requirement in map(requirements.Requirement, declared)
        if requirement.marker is None
        or requirement.marker.evaluate({"extra": ""})
    ]
    if wrong := list(filter(None, map(_complaint, needed))):
        return Finding(
            PROBLEM,
            f"{'; '.join(wrong)}: install qgen_tf in a fresh environment with "
            "`pip install .`, which picks versions that fit.",
        )
    return Finding(OK, f"all {len(needed)} are there, in versions that fit")


def _complaint(requirement: requirements.Requirement) -> str:
    """Returns what is wrong with an installed package; "" if it fits."""
    version = _version(requirement.name)
    if not version:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement} is needed, {version} is there"


def legacy_keras() -> Finding:
    """Do TensorFlow, legacy Keras and the quantization wrappers fit?"""
    versions = compat.check_env()
    import tensorflow_model_optimization  # noqa: F401

    return Finding(
        OK,
        f"tf.keras is tf_keras {versions['tf-keras']}, on TensorFlow "
        f"{versions['tensorflow']}",
    )


def gpu() -> Finding:
    """Does TensorFlow see a GPU, if there is one?"""
    import tensorflow as tf

    if devices := tf.config.list_physical_devices("GPU"):
        details = map(tf.config.experimental.get_device_details, devices)
        names = [found.get("device_name", "unnamed") for found in details]
        return Finding(OK, ", ".join(names))
    if not any(map(os.path.exists, _DRIVERS)):
        return Finding(OK, "none, for want of an NVIDIA driver; the CPU works")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return Finding(
            WARNING,
            f"CUDA_VISIBLE_DEVICES={visible} hides the GPU: unset it to use "
            "one.",
        )
    return Finding(
        WARNING,
        "there is an NVIDIA driver, but TensorFlow finds no GPU: run `pip "
        "install '.[gpu]'` for the CUDA libraries, and look at what "
        "TF_CPP_MIN_LOG_LEVEL=0 qgen-train --config=quickstart says first.",
    )


def digits() -> Finding:
    """Can the digits be read, that the quick start trains on?"""
    return _read("digits")


def cifar10() -> Finding:
    """Can CIFAR-10 be read? It is not downloaded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(
        "cifar10", data_dir=os.environ.get("TFDS_DATA_DIR"), try_gcs=False
    )
    if builder.is_prepared():
        return _read("cifar10")
    return Finding(
        WARNING,
        f"not in {builder.data_dir}: set TFDS_DATA_DIR to a folder of "
        "tensorflow_datasets that has it, or let the first training that "
        "needs it download it.",
    )


def _read(name: str) -> Finding:
    from qgen_tf.data import datasets

    source = datasets.source(name)
    for split in (source.train, source.test):
        next(iter(split.images()))
    return Finding(
        OK, f"{source.train.size:,} to train, {source.test.size:,} to test"
    )


def ray() -> Finding:
    """Does Ray start here, and compute?"""
    import ray as package

    package.init(
        address="local",  # not the cluster that RAY_ADDRESS may name
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        package.get(package.remote(_version).remote("ray"))
    finally:
        package.shutdown()
    return Finding(OK, f"{_version('ray')} starts, and runs a task")


def litert() -> Finding:
    """Does the runtime compute a small int8 model as it should?"""
    from export import Interpreter
    from export.operator_file import operator_file

    file = operator_file("CONV_2D", 8, seed=0)
    interpreter = Interpreter(file.content, batch_size=1)
    off = abs(interpreter.output_levels(file.inputs) - 1.0 * file.outputs).max()
    version = _version("ai-edge-litert")
    if off > 1.0:  # some kernels round twice
        raise errors.StackError(
            f"ai-edge-litert {version} computes a convolution in int8 "
            f"{off:.0f} steps off: install another version."
        )
    return Finding(OK, f"{version} runs int8 models")


def room(workdir: pathlib.Path) -> Finding:
    """Can run directories be written into a folder, and is there room?"""
    folder = workdir.expanduser().absolute()
    while not folder.exists():  # qgen-train makes it, and its parents
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            PROBLEM,
            f"cannot write to {folder}: {error.strerror}; choose another "
            "--workdir.",
        )
    gigabytes = shutil.disk_usage(folder).free / 1e9
    text = f"{gigabytes:,.1f} GB of room in {folder}"
    if gigabytes >= _LITTLE_ROOM:
        return Finding(OK, text)
    return Finding(
        WARNING if gigabytes >= _LEAST_ROOM else PROBLEM,
        f"{text}: make more, or choose another --workdir.",
    )


def scikit_image() -> Finding:
    """Is there what some corruptions of test sets need?"""
    if version := _version("scikit-image"):
        return Finding(OK, version)
    return Finding(
        WARNING,
        "missing, which corrupted test sets need: run `pip install "
        "'.[corruptions]'` to have them.",
    )


def chromium() -> Finding:
    """Is there what the tests of reports need?"""
    if path := shutil.which("chromium"):
        return Finding(OK, path)
    return Finding(
        WARNING,
        "missing, so that the tests of reports are skipped: install it with "
        "the package manager of the system to run them.",
    )


def _version(distribution: str) -> str:
    """Returns the installed version; "" if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
