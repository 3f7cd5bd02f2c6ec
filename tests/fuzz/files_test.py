"""Damaged and foreign files; `python -m tests.fuzz` tries more."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer, interpreter, model_file, sandbox, weights
from qgen_tf import errors
from tests.fuzz import files, targets


@pytest.fixture(scope="module")
def child():
    with sandbox.Sandbox(timeout=20.0) as child:
        yield child


def test_originals_are_fine(child):
    for network, content in files.originals().values():
        for step in files.steps(network, content, child).values():
            step()


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 90), pytest.param(1, 900, marks=pytest.mark.full)]
)
def test_damage_is_noticed(seed, count):
    refused = set()
    with targets.opened("tflite") as attempt:
        for number in range(count):
            refused.update(attempt(seed, number)[1])
    # not all for the same reason
    assert refused == set(files.STEPS)


def test_damage_is_repeatable_and_changes_the_file():
    contents = {content for _, content in files.originals().values()}
    first, second = (
        [
            files.make(np.random.default_rng((3, number)))[1][1]
            for number in range(36)
        ]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first) - contents) > 30


def _image():
    return tf.io.encode_png(np.zeros((9, 9, 1), np.uint8)).numpy()


def _archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.tflite", "TFL3")
    return file.getvalue()


def _flatbuffer(mark):
    builder = schema.flatbuffers.Builder(64)
    builder.StartObject(1)
    builder.Finish(builder.EndObject(), mark)
    return bytes(builder.Output())


FOREIGN = {
    "empty": b"",
    "text": b"not a model",
    "png": _image(),
    "zip": _archive(),
    "other flatbuffer": _flatbuffer(b"ARRO"),
    "no graph": _flatbuffer(b"TFL3"),
    "mark only": b"\0\0\0\0TFL3",
    "mark and zeros": b"\0\0\0\0TFL3" + bytes(999),
    "mark and ones": b"\0\0\0\0TFL3" + b"\xff" * 999,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(child, name):
    network, _ = files.originals()["int8"]
    for refuses in (
        model_file.parse,
        weights.expand,
        interpreter.Interpreter,
        lambda content: flatbuffer.check(network, content),
        lambda content: sandbox.probe(content, sandbox=child),
    ):
        with pytest.raises(errors.ExportError):
            refuses(FOREIGN[name])
