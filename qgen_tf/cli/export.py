"""`qgen-export`: exports a trained model and proves that the file is it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from absl import flags

from qgen_tf import errors
from qgen_tf.cli import execution, program

if TYPE_CHECKING:
    from export.remote import Target
    from qgen_tf.study.exporting import Settings

MANUAL = """\
Exports a trained model to TensorFlow Lite and proves that the file holds the
integers of the trained network: every weight level, bias and scale. A file
that stands in the run directory is proved, not made again.

  --verify    holds the file against the trained model on the whole training
              set (without augmentation) and test set: the gap of each,
              their difference, a test of equivalence, agreement
  --explain   names the first layer at which file and network diverge
  --bundle    makes a folder that measures the gap on a device; --adb or --ssh
              runs it there
  --compare   holds what a device found against the trained model

Examples:
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd
      writes export/model.tflite into the run directory
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --storage=int4 --verify
      writes export/model-int4.tflite and export/verification-int4.json,
      .txt and .html
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --verify --margin=1 \\
      --kernels=reference
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --verify \\
      --corruption=gaussian_noise --severity=3
      and the gap to a corrupted test set
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --explain
      writes export/divergence.json and .svg
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --bundle=out
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd \\
      --compare=device_result.json
  qgen-export --run_dir=runs/quickstart-w4a8-0123abcd --bundle=out \\
      --num_examples=500 --ssh=pi@raspberrypi.local

Exit status of --verify and --compare, and of a bundle that was run: 0 the gap
is the same, 1 it is different, 2 more examples would tell, or a mistake.
"""

_RUN_DIR = flags.DEFINE_string("run_dir", None, "written by qgen-train.")
_STORAGE = flags.DEFINE_enum(
    "storage",
    "int8",
    ["int8", "int4", "int2"],
    "of weights. int4 packs two of 4 bits or fewer into a byte, int2 four of 2 "
    "bits; other weights stay int8.",
)
_ALLOW_FLOAT = flags.DEFINE_list(
    "allow_float",
    [],
    "patterns of layers that may compute in float, such as '*layer_norm*'.",
)
_VERIFY = flags.DEFINE_bool("verify", False, "whether to verify the file.")
_MARGIN = flags.DEFINE_float(
    "margin",
    0.5,
    "largest difference of two accuracy gaps that counts as none, in points.",
)
_KERNELS = flags.DEFINE_enum(
    "kernels",
    "xnnpack",
    ["xnnpack", "builtin", "reference"],
    "of the runtime, to verify or explain with.",
)
_CORRUPTION = flags.DEFINE_string(
    "corruption",
    None,
    "kind of a corrupted test set to verify on, too: gaussian_noise, "
    "shot_noise, speckle_noise, gaussian_blur, zoom_blur, fog, brightness, "
    "saturate, contrast, pixelate or jpeg_compression.",
)
_SEVERITY = flags.DEFINE_integer(
    "severity", None, "of the corruption, 1 to 5; 3 if it is not given."
)
_EXPLAIN = flags.DEFINE_bool(
    "explain", False, "whether to look for the layer that diverges."
)
_BUNDLE = flags.DEFINE_string("bundle", None, "folder to make for a device.")
_NUM_EXAMPLES = flags.DEFINE_integer(
    "num_examples", 0, "of each set in the bundle; 0 takes all."
)
_ADB = flags.DEFINE_bool(
    "adb", False, "whether to run the bundle on the Android device at hand."
)
_SSH = flags.DEFINE_string("ssh", None, "host to run the bundle on.")
_COMPARE = flags.DEFINE_string(
    "compare", None, "device_result.json that a bundle wrote."
)
_DETERMINISTIC = execution.define_deterministic()
_HOLDERS = (
    *(_RUN_DIR, _STORAGE, _ALLOW_FLOAT),
    *(_VERIFY, _MARGIN, _KERNELS, _CORRUPTION, _SEVERITY),
    *(_EXPLAIN, _BUNDLE, _NUM_EXAMPLES, _ADB, _SSH, _COMPARE, _DETERMINISTIC),
)

# flag to the flags, one of which it needs
_NEEDS = (
    (_MARGIN, (_VERIFY, _COMPARE, _ADB, _SSH)),
    (_KERNELS, (_VERIFY, _EXPLAIN)),
    (_CORRUPTION, (_VERIFY,)),
    (_SEVERITY, (_CORRUPTION,)),
    (_NUM_EXAMPLES, (_BUNDLE,)),
    (_ADB, (_BUNDLE,)),
    (_SSH, (_BUNDLE,)),
)
_ONE_OF = ((_VERIFY, _EXPLAIN, _BUNDLE, _COMPARE), (_ADB, _SSH))

_STATUS = {"same": 0, "different": 1, "cannot tell": 2}


def _main() -> None:
    run_dir = program.require(_RUN_DIR)
    _check_flags()
    from qgen_tf import training
    from qgen_tf.study import explaining, exporting, tables

    training.make_deterministic(seed=0, operations=_DETERMINISTIC.value)
    settings = _settings()
    if _VERIFY.value:
        record = exporting.verify(run_dir, settings)
        print(tables.verification_text(record))
        sys.exit(_STATUS[record["verdict"]])
    if _EXPLAIN.value:
        print(tables.divergence_text(explaining.explain(run_dir, settings)))
    elif _BUNDLE.value:
        _bundle(run_dir)
    elif _COMPARE.value:
        _compare(run_dir, _COMPARE.value)
    else:
        path = exporting.export(run_dir, settings)
        print(f"{path}: {path.stat().st_size} bytes, all integers are proved")


def _settings() -> Settings:
    from qgen_tf.study import exporting

    severity = _SEVERITY.value
    return exporting.Settings(
        storage=_STORAGE.value,
        allow_float=tuple(_ALLOW_FLOAT.value),
        margin=_MARGIN.value,
        kernels=_KERNELS.value,
        corruption=_CORRUPTION.value,
        severity=3 if severity is None else severity,
    )


def _target() -> Target | None:
    from export import remote

    if _ADB.value:
        return remote.Adb()
    return None if _SSH.value is None else remote.Ssh(_SSH.value)


def _bundle(run_dir: str) -> None:
    from export import remote
    from qgen_tf.study import bundling

    target = _target()
    archive = bundling.bundle(
        run_dir,
        _BUNDLE.value,
        storage=_STORAGE.value,
        num_examples=_NUM_EXAMPLES.value,
        allow_float=_ALLOW_FLOAT.value,
    )
    print(f"{archive}: {archive.stat().st_size} bytes")
    if target is not None:
        result = remote.run(_BUNDLE.value, target=target)
        _compare(run_dir, str(result))


def _compare(run_dir: str, result_file: str) -> None:
    from qgen_tf.study import comparison, tables

    record = comparison.compare(run_dir, result_file, margin=_MARGIN.value)
    print(tables.device_text(record))
    sys.exit(_STATUS[record["verdict"]])


def _check_flags() -> None:
    """Raises a ConfigError if flags exclude or miss one another."""
    for holder, needed in _NEEDS:
        if _is_given(holder) and not any(map(_is_given, needed)):
            names = " or ".join(f"--{other.name}" for other in needed)
            raise errors.ConfigError(
                f"--{holder.name} has no effect without {names}: add it."
            )
    for choices in _ONE_OF:
        given = [f"--{holder.name}" for holder in choices if _is_given(holder)]
        if len(given) > 1:
            raise errors.ConfigError(
                f"{' and '.join(given)} are different jobs: ask for one at a "
                "time."
            )


def _is_given(holder: flags.FlagHolder) -> bool:
    return holder.value != holder.default


def main() -> None:
    """Runs the program."""
    program.run(_main, MANUAL, _HOLDERS)


if __name__ == "__main__":
    main()
