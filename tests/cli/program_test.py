"""The command line as a user meets it: help, mistakes, exit codes."""

import re
import subprocess
import sys

import pytest

from qgen_tf import measures
from qgen_tf.cli import measure, program
from tests import forks, imports

_PROGRAMS = (
    *("train", "measure", "export", "sweep", "report", "figure"),
    "doctor",
)


def _run(name, *arguments, **settings):
    return forks.run(forks.command, name, *arguments, **settings)


def _run_alone(name, *arguments):
    """Runs a program in a process that imports TensorFlow itself, if at all."""
    return subprocess.run(
        [sys.executable, "-m", f"qgen_tf.cli.{name}", *arguments],
        env={"PYTHONPATH": str(imports.REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


def _assert_one_sentence(result, *parts):
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "Traceback" not in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", _PROGRAMS)
def test_help_teaches(name):
    result = _run(name, "--help")
    assert result.returncode == 0
    assert f"Examples:\n  qgen-{name} --" in result.stdout
    assert "Flags:" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_lists_the_measures():
    manual = measure.MANUAL.replace("[adaptive_]", "adaptive_")
    for name in measures.MEASURES:
        twelve = re.fullmatch(r"(?:pac_bayes|sharpness)_((?:mag_)?\w+)", name)
        form = twelve and re.search(rf"\b{twelve[1]}\b", manual)
        assert form or re.search(rf"\b(?:adaptive_)?{name}\b", manual), name


def test_help_lists_the_configs():
    result = _run_alone("train", "--help")
    assert "TensorFlow" not in result.stderr
    text = " ".join(result.stdout.split())
    assert "cifar10_nin, cifar10_resnet18, cifar10_resnet20" in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config=quickstrat"], ["'quickstrat'", "quickstart"]),
        (["--config=missing/note.py"], ["missing/note.py"]),
        ([], ["--config is missing", "--help"]),
        (["--config=quickstart", "--config.sed=1"], ["'sed'", "'seed'"]),
        (["--config=quickstart", "--config.seed=x"], ["--config.seed=x"]),
        (
            ["--config=quickstart", "--config.training.lr=1"],
            ["no field 'lr'"],
        ),
        (["--config=quickstart", "--workdri=x"], ["workdri", "workdir"]),
        (["--config=quickstart", "runs"], ["'runs'", "--NAME=VALUE"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, parts):
    _assert_one_sentence(_run("train", *arguments), *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("def get_config(:\n", ["SyntaxError"]),
        ("x = 1\n", ["get_config"]),
        (
            "from qgen_tf.config import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            "    with config.unlocked():\n"
            "        del config['seed']\n"
            "        config.sede = 1\n"
            "    return config\n",
            ["seed", "default_config"],
        ),
    ],
)
def test_a_config_of_ones_own_with_a_mistake(tmp_path, content, parts):
    note = tmp_path / "note.py"
    note.write_text(content)
    _assert_one_sentence(_run("train", f"--config={note}"), *parts)


_INTERRUPTED = """
import os
import signal

def get_config():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("amid something")
"""


def test_ctrl_c_that_comes_out_as_another_error(tmp_path):
    path = tmp_path / "note.py"
    path.write_text(_INTERRUPTED)
    result = forks.run(forks.command_in_a_terminal, "train", f"--config={path}")
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == (
        "qgen-train: interrupted; run the same command to go on."
    )


@pytest.mark.parametrize(
    ("name", "run"), [("measure", _run_alone), ("export", _run)]
)
def test_a_run_directory_is_asked_for(name, run):
    _assert_one_sentence(run(name), "--run_dir is missing")


def test_mistakes_that_need_tensorflow_to_be_seen(tmp_path):
    cases = {
        (
            "train",
            "--config=quickstart",
            "--config.quantization.weight_bits=9",
        ): ("weight_bits is 9"),
        ("train", "--config=quickstart", "--config.dataset.name=no_such_set"): (
            "no_such_set"
        ),
        ("report", f"--workdir={tmp_path}", "--name=x"): "qgen-sweep",
    }
    for (name, *arguments), message in cases.items():
        result = _run(name, *arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"qgen-{name}: ") and message in last
        assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_names_of_configs_are_files(monkeypatch):
    assert program._config_names() == [
        *("cifar10_mobilenet_v2", "cifar10_nin", "cifar10_resnet18"),
        *("cifar10_resnet20", "cifar10_resnet50", "cifar10_swin"),
        *("cifar10_vit", "image_folder", "imagenet_deit_tiny"),
        *("imagenet_mobilenet_v2", "imagenet_resnet18"),
        *("imagenet_resnet50", "imagenet_swin_tiny", "quickstart"),
        *("sweep_cifar10_nin", "sweep_cifar10_vit", "sweep_quickstart"),
    ]
    path = program._with_config_path("--config=quickstart")
    assert path.startswith("--config=/") and path.endswith("quickstart.py")
    assert program._with_config_path("--config.seed=3") == "--config.seed=3"
