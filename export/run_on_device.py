"""Runs the bundle that this file lies in and says how well it generalizes.

Needs Python 3.9 or newer, numpy and ai-edge-litert, nothing else:

    python3 -m pip install numpy ai-edge-litert
    python3 run_on_device.py

The files of the bundle are checked against manifest.json first. Then the model
runs on every example of the training and the test set, and what it gives is
compared with what the training machine recorded. device_result.json, written
last, goes back there for the verdict:

    qgen-export --run_dir=RUN --compare=device_result.json

Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

try:
    import numpy as np
except ImportError:
    sys.stderr.write(
        "numpy is missing: python3 -m pip install numpy ai-edge-litert\n"
    )
    sys.exit(2)

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.tflite"
RESULT_FILE = "device_result.json"
SPLITS = ("train", "test")
BUNDLE_FORMAT = "qgen_tf bundle 1"
RESULT_FORMAT = "qgen_tf device result 1"
KERNELS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}

_CHUNK = 1 << 20
_ALIGNMENT = 16  # bytes, of the arrays in a model file
_LOW_BITS = {17: 4, 19: 2}  # number of a tensor type in a model file: bits
_WARM_UP_RUNS = 10


class BundleError(Exception):
    """What is wrong with the bundle or this machine, in one sentence."""


# The bundle


def bundle_id(folder: str) -> str:
    """Returns the SHA-256 of the manifest, which holds that of each file."""
    return sha256(os.path.join(folder, MANIFEST_FILE))


def read_manifest(folder: str) -> dict[str, Any]:
    """Returns the manifest of a bundle whose files are as they were written.

    Raises:
      BundleError: the manifest is missing or damaged, or a file is missing,
        changed, a link or outside of the folder.
    """
    path = _regular_file(folder, MANIFEST_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        files = _checked_fields(manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path} is damaged or of another program "
            f"({type(error).__name__}: {error}): copy the bundle again."
        ) from error
    for name, (digest, num_bytes) in files.items():
        path = _regular_file(folder, name)
        if os.path.getsize(path) != num_bytes or sha256(path) != digest:
            raise BundleError(
                f"{path} is not as the manifest has it: copy the bundle again."
            )
    return manifest


def _checked_fields(manifest: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Returns name -> (SHA-256, size); raises if a field is not as it must."""
    if manifest["format"] != BUNDLE_FORMAT:
        raise ValueError(f"its format is not {BUNDLE_FORMAT!r}")
    if manifest["kernels"] not in KERNELS:
        raise ValueError(f"kernels are not one of {list(KERNELS)}")
    for name in ("is_float", "expand_low_bits"):
        if not isinstance(manifest[name], bool):
            raise ValueError(f"{name} is not true or false")
    for split in SPLITS:
        recorded = manifest["recorded"][split]
        int(recorded["num_examples"])
        float(recorded["accuracy"]), float(recorded["loss"])
    files = {
        name: (str(facts["sha256"]), int(facts["num_bytes"]))
        for name, facts in manifest["files"].items()
    }
    for name in (MODEL_FILE, *map(examples_file, SPLITS)):
        if name not in files:
            raise ValueError(f"{name} is not listed")
    return files


def _regular_file(folder: str, name: str) -> str:
    """Returns the path of a file right in the folder, not of a link."""
    if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
        raise BundleError(
            f"the manifest names {name!r}, which is not a file right in the "
            "folder of the bundle: do not use this bundle."
        )
    path = os.path.join(folder, name)
    if os.path.islink(path):
        raise BundleError(
            f"{path} is a link: put the file itself into the bundle."
        )
    if not os.path.isfile(path):
        raise BundleError(f"{path} is missing: copy the bundle again.")
    return path


def sha256(path: str) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


# The examples


def examples_file(split: str) -> str:
    """Returns the name of the file of a split."""
    return f"{split}.npz"


def batches(path: str, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields (images, labels, outputs) of a file of examples, batch by batch.

    Args:
      path: of an .npz file with these arrays; it is never in memory as a whole.
      batch_size: examples a batch; the last may have fewer.

    Raises:
      BundleError: the file is damaged or empty.
    """
    try:
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            arrays = [
                _StoredArray(stack.enter_context(_member(archive, name)))
                for name in ("images", "labels", "outputs")
            ]
            count = arrays[0].shape[0]
            if not count or any(count != array.shape[0] for array in arrays):
                raise ValueError("its arrays are not of one length")
            for start in range(0, count, batch_size):
                size = min(batch_size, count - start)
                yield tuple(array.read(size) for array in arrays)
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise BundleError(f"{path} is damaged: {error}.") from error


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Opens an array; one that would grow as it is read is refused."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed")
    return archive.open(entry)


class _StoredArray:
    """One array of an .npz file, read from its front to its end.

    Attributes:
      shape: of the array; the first axis counts examples.
    """

    def __init__(self, file: IO[bytes]):
        np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0(file)
        self._file = file
        self.shape, fortran_order, self._dtype = header
        if fortran_order or self._dtype.hasobject or not self.shape:
            raise ValueError("an array is not of numbers, example by example")

    def read(self, count: int) -> np.ndarray:
        """Returns the next examples."""
        shape = (count, *self.shape[1:])
        size = int(np.prod(shape)) * self._dtype.itemsize
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError("it ends too early")
        return np.frombuffer(data, self._dtype).reshape(shape)


# The model


def expand_low_bits(content: bytes) -> bytes:
    """Returns a model file with weights of 2 and 4 bits stored in 8.

    The runtime has no operators for some of them; those for 8 bits are the
    fastest, and round as the trained network does.
    """
    from ai_edge_litert import schema_py_generated as schema

    class AlignedBuilder(schema.flatbuffers.Builder):
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            self.Prep(_ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type in _LOW_BITS and data is not None:
            size = int(np.prod(tensor.shape))
            buffer = schema.BufferT()
            buffer.data = _unpacked(data, _LOW_BITS[tensor.type], size)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
            tensor.type = schema.TensorType.INT8
    builder = AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _unpacked(data: np.ndarray, num_bits: int, size: int) -> np.ndarray:
    """Returns the bytes of signed values that are packed lowest bits first."""
    shifts = np.arange(0, 8, num_bits, dtype=np.uint8)
    values = (np.asarray(data, np.uint8)[:, None] >> shifts).reshape(-1)
    values = values[:size] & np.uint8((1 << num_bits) - 1)
    sign = np.uint8(1 << (num_bits - 1))
    return (values ^ sign) - sign  # modulo 256, as negative bytes are


class Model:
    """A model file, ready to run on batches of one size.

    Attributes:
      input: what the runtime says of the input.
      output: of the output.
      is_float: whether these are floats, not int8.
    """

    def __init__(
        self, content: bytes, *, batch_size: int, num_threads: int, kernels: str
    ):
        """Loads a model.

        Args:
          content: of the file.
          batch_size: largest number of examples a call.
          num_threads: of the runtime.
          kernels: one of `KERNELS`.

        Raises:
          BundleError: the runtime is missing or cannot run the file.
        """
        try:
            from ai_edge_litert import interpreter as litert
        except ImportError as error:
            raise BundleError(
                f"ai-edge-litert is missing on this machine ({error}): "
                "python3 -m pip install numpy ai-edge-litert"
            ) from error
        try:
            self._runtime = litert.Interpreter(
                model_content=content,
                num_threads=num_threads,
                experimental_op_resolver_type=getattr(
                    litert.OpResolverType, KERNELS[kernels]
                ),
            )
            (details,) = self._runtime.get_input_details()
            shape = (batch_size, *details["shape"][1:])
            self._runtime.resize_tensor_input(details["index"], shape)
            self._runtime.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"this machine's LiteRT cannot run the model with the "
                f"{kernels} kernels ({' '.join(str(error).split())}): install "
                "a newer ai-edge-litert, or choose other --kernels."
            ) from error
        (self.input,) = self._runtime.get_input_details()
        (self.output,) = self._runtime.get_output_details()
        self.is_float = self.input["dtype"] == np.float32
        self._batch = np.zeros(self.input["shape"], self.input["dtype"])

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Returns the outputs of stored images, integers as they are.

        Args:
          images: uint8, 128 more than the integers of the input, or float32;
            at most a batch.

        Raises:
          BundleError: they are not what the model takes.
        """
        stored = np.dtype(np.float32 if self.is_float else np.uint8)
        shape = self._batch.shape[1:]
        if images.dtype != stored or images.shape[1:] != shape:
            raise BundleError(
                f"the images are {images.dtype} {images.shape[1:]}, but the "
                f"model takes {stored} {shape}: make the bundle again."
            )
        if not self.is_float:
            images = (images ^ np.uint8(128)).view(np.int8)
        self._batch[: len(images)] = images
        self._runtime.set_tensor(self.input["index"], self._batch)
        self._runtime.invoke()
        return self._runtime.get_tensor(self.output["index"])[: len(images)]

    def logits(self, outputs: np.ndarray) -> np.ndarray:
        """Returns outputs as float32."""
        scale, zero_point = self.output["quantization"]
        if not scale:
            return outputs
        return (outputs.astype(np.float32) - zero_point) * np.float32(scale)


# What is measured


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the loss of each example in nats, float32.

    Raises:
      BundleError: a loss is not finite.
    """
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1))
    losses -= logits[np.arange(len(labels)), labels]
    if not np.isfinite(losses).all():
        raise BundleError(
            "a loss is not finite: the model does not work on this machine."
        )
    return losses.astype(np.float32)


def evaluate(
    model: Model,
    path: str,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Runs a model on a file of examples and compares with what it holds.

    Args:
      model: for at least `batch_size` examples.
      path: of the examples.
      batch_size: examples a call.
      progress: is told how many examples are done.

    Returns:
      A dict: losses, float32 [examples]; correct, bool [examples];
      different_outputs, a number of examples; max_steps, the largest
      difference of an output, in its integers (in logits for floats);
      same_class, a number of examples.

    Raises:
      BundleError: the examples are not those of this model.
    """
    losses, correct = [], []
    done, different, same_class, max_steps = 0, 0, 0, 0
    for images, labels, recorded in batches(path, batch_size):
        outputs = model.outputs(images)
        logits = model.logits(outputs)
        num_classes = outputs.shape[-1]
        if recorded.shape != outputs.shape or not (
            0 <= labels.min() and labels.max() < num_classes
        ):
            raise BundleError(
                f"{path} is not of a model of {num_classes} classes."
            )
        classes = logits.argmax(axis=1)
        losses.append(cross_entropy(logits, labels))
        correct.append(classes == labels)
        wide = np.float64 if model.is_float else np.int64
        steps = np.abs(outputs.astype(wide) - recorded.astype(wide)).max(axis=1)
        different += int((steps > 0).sum())
        max_steps = max(max_steps, steps.max().item())
        same_class += int((classes == recorded.argmax(axis=1)).sum())
        done += len(labels)
        progress(done)
    return {
        "losses": np.concatenate(losses),
        "correct": np.concatenate(correct),
        "different_outputs": different,
        "max_steps": max_steps,
        "same_class": same_class,
    }


def summary(losses: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Returns accuracy in points and loss in nats of an evaluation."""
    return {
        "num_examples": len(losses),
        "accuracy": 100.0 * float(correct.mean()),
        "loss": float(losses.mean(dtype=np.float64)),
    }


def gap(summaries: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns train minus test, of accuracy in points and loss in nats."""
    train, test = (summaries[split] for split in SPLITS)
    return {name: train[name] - test[name] for name in ("accuracy", "loss")}


def latency(model: Model, image: np.ndarray, num_runs: int) -> dict[str, Any]:
    """Returns percentiles of the time of one call, in milliseconds."""
    times = []
    for _ in range(_WARM_UP_RUNS + num_runs):
        start = time.perf_counter()
        model.outputs(image)
        times.append(1e3 * (time.perf_counter() - start))
    p50, p90 = np.percentile(times[_WARM_UP_RUNS:], [50, 90])
    return {"p50": float(p50), "p90": float(p90), "num_runs": num_runs}


def _peak_megabytes() -> float | None:
    """Returns the most memory that this process had, None if unknown."""
    try:
        # getrusage counts what started this process, too
        with open("/proc/self/status", encoding="utf-8") as file:
            (line,) = [line for line in file if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1e3
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _machine() -> dict[str, Any]:
    from importlib import metadata

    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "num_cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "litert": metadata.version("ai-edge-litert"),
    }


# The program


def run(
    folder: str,
    manifest: dict[str, Any],
    *,
    num_threads: int,
    kernels: str,
    batch_size: int,
    num_latency_runs: int,
) -> dict[str, Any]:
    """Runs a bundle.

    Args:
      folder: of the bundle.
      manifest: of the bundle, checked.
      num_threads: of the runtime.
      kernels: one of `KERNELS`.
      batch_size: examples a call.
      num_latency_runs: calls with one example that are timed.

    Returns:
      What goes into device_result.json.

    Raises:
      BundleError: the bundle or this machine is not fit for it.
    """
    with open(os.path.join(folder, MODEL_FILE), "rb") as file:
        content = file.read()
    if manifest["expand_low_bits"]:
        content = expand_low_bits(content)
    settings: dict[str, Any] = {"num_threads": num_threads, "kernels": kernels}
    model = Model(content, batch_size=batch_size, **settings)
    found = {}
    for split in SPLITS:
        path = os.path.join(folder, examples_file(split))
        total = manifest["recorded"][split]["num_examples"]
        progress = _Progress(split, total)
        found[split] = evaluate(model, path, batch_size, progress)
        if len(found[split]["losses"]) != total:
            raise BundleError(f"{path} does not hold {total} examples.")
    model = Model(content, batch_size=1, **settings)
    image = next(batches(path, 1))[0]
    packed = {split: _packed(found[split]) for split in SPLITS}
    return {
        "format": RESULT_FORMAT,
        "bundle": bundle_id(folder),
        "machine": _machine(),
        **settings,
        "batch_size": batch_size,
        "latency_ms": latency(model, image, num_latency_runs),
        "peak_memory_mb": _peak_megabytes(),
        "gap": gap(packed),
        **packed,
    }


def _packed(found: dict[str, Any]) -> dict[str, Any]:
    """Returns an evaluation as JSON types; arrays become base64."""
    losses, correct = found["losses"], found["correct"]
    arrays = {"losses": losses.astype("<f4"), "correct": np.packbits(correct)}
    return {
        **summary(losses, correct),
        **found,
        **{
            name: base64.b64encode(array.tobytes()).decode()
            for name, array in arrays.items()
        },
    }


class _Progress:
    """Prints how many examples are done: in one line, or in few to a file."""

    def __init__(self, split: str, total: int):
        self._split, self._total = split, total
        self._next = 0

    def __call__(self, done: int) -> None:
        line = f"{self._split:5} {done:,} of {self._total:,} examples"
        if sys.stdout.isatty():
            end = "\n" if done == self._total else ""
            print(f"\r{line}", end=end, flush=True)
        elif done >= self._next or done == self._total:
            self._next = done + self._total // 4
            print(line, flush=True)


def report(manifest: dict[str, Any], result: dict[str, Any]) -> str:
    """Returns the result beside what was recorded, as text."""
    recorded = manifest["recorded"]
    units = {"accuracy": "points", "loss": "nats"}
    rows = [
        (f"{title} {name}", here[name], there[name], unit)
        for title, here, there in (
            *((split, result[split], recorded[split]) for split in SPLITS),
            ("gap in", result["gap"], gap(recorded)),
        )
        for name, unit in units.items()
    ]
    lines = [f"{'':16}{'device':>12}{'recorded':>12}"]
    lines += [f"{a:16}{b:12.4f}{c:12.4f}  {unit}" for a, b, c, unit in rows]
    unit = "logits" if manifest["is_float"] else "steps"
    for split in SPLITS:
        found = result[split]
        count = found["num_examples"]
        lines += [
            f"{split}: {found['different_outputs']:,} of {count:,} examples "
            f"with other outputs, by {found['max_steps']:.4g} {unit} at most;",
            f"    same class on {100.0 * found['same_class'] / count:.2f} %",
        ]
    times, memory = result["latency_ms"], result["peak_memory_mb"]
    lines += [
        f"one example: {times['p50']:.3f} ms (p50), {times['p90']:.3f} ms "
        f"(p90) of {times['num_runs']} runs",
        f"{result['kernels']} kernels, {result['num_threads']} threads",
        "peak memory: " + ("unknown" if memory is None else f"{memory:.0f} MB"),
        "{machine}, {num_cores} cores, {system}, Python {python}, "
        "numpy {numpy}, LiteRT {litert}".format(**result["machine"]),
    ]
    return "\n".join(lines)


def write_result(path: str, result: dict[str, Any]) -> None:
    """Writes a file as a whole or not at all.

    Raises:
      BundleError: it cannot be written.
    """
    temporary = f"{path}.writing"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2, allow_nan=False)
            file.write("\n")
        os.replace(temporary, path)
    except OSError as error:
        if os.path.lexists(temporary):
            os.remove(temporary)
        raise BundleError(
            f"cannot write {path}: {error.strerror}; free some space, or copy "
            "the bundle to where you may write."
        ) from error


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        default=os.cpu_count() or 1,
        help="of the runtime; default: one a core",
    )
    parser.add_argument(
        "--batch_size",
        type=_positive,
        default=64,
        help="examples a call; fewer need less memory; default: %(default)s",
    )
    parser.add_argument(
        "--num_latency_runs",
        type=_positive,
        default=100,
        help="timed calls with one example; default: %(default)s",
    )
    parser.add_argument(
        "--kernels",
        choices=sorted(KERNELS),
        help="operators of the runtime; default: those of the recorded outputs",
    )
    return parser


def main() -> None:
    """Runs the program."""
    parser = _parser()
    flags = parser.parse_args()
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        manifest = read_manifest(folder)
        result = run(
            folder,
            manifest,
            num_threads=flags.threads,
            kernels=flags.kernels or manifest["kernels"],
            batch_size=flags.batch_size,
            num_latency_runs=flags.num_latency_runs,
        )
        print(report(manifest, result))
        write_result(os.path.join(folder, RESULT_FILE), result)
    except (BundleError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {RESULT_FILE}")


if __name__ == "__main__":
    main()
