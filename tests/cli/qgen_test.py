"""One program that lists the others and calls them."""

import configparser
import importlib
import re
import subprocess
import sys

import pytest

import qgen_tf
from qgen_tf.cli import qgen
from tests import imports

_CLI = imports.REPOSITORY / "qgen_tf" / "cli"


def _start(*arguments, module="qgen"):
    return subprocess.Popen(
        [sys.executable, "-m", f"qgen_tf.cli.{module}", *arguments],
        env={"PYTHONPATH": str(imports.REPOSITORY), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"], ["-h"]])
def test_help_lists_each_command_with_an_example(
    monkeypatch, capsys, arguments
):
    monkeypatch.setattr(sys, "argv", ["qgen", *arguments])
    qgen.main()
    lines = capsys.readouterr().out.splitlines()
    for name, command in qgen.COMMANDS.items():
        assert f"  {name:8} {command.summary}" in lines
        assert any(line.startswith(f"  qgen {name} --") for line in lines)
    assert max(map(len, lines)) <= 80


def test_help_imports_next_to_nothing():
    code = (
        "import sys; sys.argv = ['qgen', '--help']\n"
        "from qgen_tf.cli import qgen; qgen.main()\n"
        "print({'tensorflow', 'numpy', 'absl'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=imports.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert process.stdout.endswith("\nset()\n")


def test_every_program_is_a_command():
    programs = {
        path.stem
        for path in _CLI.glob("*.py")
        if "\ndef main(" in path.read_text()
    }
    assert programs == {"qgen", *qgen.COMMANDS}
    parser = configparser.ConfigParser()
    parser.read(imports.REPOSITORY / "setup.cfg")
    scripts = parser["options.entry_points"]["console_scripts"].split("\n")
    for script in filter(None, scripts):
        name, module = script.split(" = ")
        command = name.removeprefix("qgen-")
        assert module == f"qgen_tf.cli.{command}:main"


def test_a_command_is_the_program_of_that_name():
    helps = {name: _start(name, "--help") for name in qgen.COMMANDS}
    for name, process in helps.items():
        status, stdout, _ = _finish(process)
        assert status == 0
        assert stdout.count(f"qgen-{name} --") >= 1
        for flag in re.findall(r"--(\w+)", qgen.COMMANDS[name].example):
            assert f"\n  --{flag}=...\n" in stdout, (name, flag)


def test_arguments_and_mistakes_are_passed_on():
    mistake = "--config=quickstrat"
    ours, theirs = _start("train", mistake), _start(mistake, module="train")
    status, stdout, stderr = _finish(ours)
    assert (status, stdout) == (2, "")
    assert stderr == _finish(theirs)[2].replace("train.py:", "qgen-train:")
    assert "'quickstrat'" in stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "no command 'trian': did you mean 'train'? see qgen --help"),
        ("zzz", "there is no command 'zzz': see qgen --help."),
        ("--config=quickstart", "there is no command '--config=quickstart'"),
    ],
)
def test_an_unknown_command_is_one_sentence(monkeypatch, capsys, name, message):
    monkeypatch.setattr(sys, "argv", ["qgen", name])
    with pytest.raises(SystemExit) as caught:
        qgen.main()
    assert caught.value.code == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert line.startswith("qgen: ") and message in line


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qgen", "--version"])
    qgen.main()
    assert capsys.readouterr().out == f"qgen_tf {qgen_tf.__version__}\n"
    for name in qgen.COMMANDS:
        assert importlib.util.find_spec(f"qgen_tf.cli.{name}")
