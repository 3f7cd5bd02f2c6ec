"""One program that lists the others and calls them."""

import configparser
import importlib
import re
import subprocess
import sys

import pytest

import qgen_tf
from qgen_tf.cli import qgen
from tests import forks, imports

_CLI = imports.REPOSITORY / "qgen_tf" / "cli"


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
    for name, each in qgen.COMMANDS.items():
        result = forks.run(forks.command, "qgen", name, "--help")
        assert result.returncode == 0
        assert result.stdout.count(f"qgen-{name} --") >= 1
        for flag in re.findall(r"--(\w+)", each.example):
            assert f"\n  --{flag}=...\n" in result.stdout, (name, flag)


def test_arguments_and_mistakes_are_passed_on():
    mistake = "--config=quickstrat"
    ours, theirs = (
        forks.run(forks.command, *names, mistake)
        for names in (("qgen", "train"), ("train",))
    )
    assert (ours.returncode, ours.stdout) == (2, "")
    assert ours.stderr == theirs.stderr
    assert "'quickstrat'" in ours.stderr


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
