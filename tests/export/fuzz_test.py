"""Damaged and foreign files; `python -m tests.export.fuzz` tries more."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer, interpreter, model_file, sandbox, weights
from qgen_tf import errors
from tests.export import fuzz


@pytest.fixture(scope="module")
def child():
    with sandbox.Sandbox(timeout=20.0) as child:
        yield child


def test_originals_are_fine(child):
    for network, content in fuzz.originals().values():
        assert fuzz.try_file(network, content, child) == {}


def _all_noticed(child, seed, count):
    refused = set()
    for _, network, content in fuzz.mutations(seed, count):
        refused.update(fuzz.try_file(network, content, child))
    # not all for the same reason
    assert refused == {"parse", "read", "expand", "check", "run"}


def test_damage_is_noticed(child):
    _all_noticed(child, seed=0, count=90)


@pytest.mark.slow
def test_more_damage_is_noticed(child):
    _all_noticed(child, seed=1, count=900)


def test_mutations_are_repeatable_and_change_the_file():
    contents = {content for _, content in fuzz.originals().values()}
    first, second = (
        [content for _, _, content in fuzz.mutations(3, 36)] for _ in range(2)
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
    network, _ = fuzz.originals()["int8"]
    for refuses in (
        model_file.parse,
        weights.expand,
        interpreter.Interpreter,
        lambda content: flatbuffer.check(network, content),
        lambda content: sandbox.probe(content, sandbox=child),
    ):
        with pytest.raises(errors.ExportError):
            refuses(FOREIGN[name])
