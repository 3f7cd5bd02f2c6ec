"""`qgen-figure` as a user meets it: files, mistakes, exit codes."""

import re
import sys
import xml.etree.ElementTree

import pytest
from absl.testing import flagsaver

from qgen_tf import training
from qgen_tf.cli import figure
from qgen_tf.study.reporting import landscape_figures
from qgen_tf.training import RunDirectory
from tests import forks, tiny

_QUICK = ("--num_points=3", "--num_examples=32")
_SIGNATURES = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}


def _arguments(output, runs, kind="landscape"):
    return [
        f"--kind={kind}",
        f"--output={output}",
        f"--run_dirs={','.join(str(run) for run in runs)}",
        *_QUICK,
    ]


def _texts(path):
    root = xml.etree.ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return {*map(str.strip, root.itertext())}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A float run and its twin of 4 bits, trained for a moment."""
    return [run.path for run in tiny.copies(tmp_path_factory.mktemp("runs"))]


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the program here: (arguments) to exit code, stdout and stderr."""
    # it would hold for all tests behind
    monkeypatch.setattr(training, "make_deterministic", lambda seed: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qgen-figure", *arguments])
        code = 0
        with flagsaver.flagsaver():
            try:
                figure.main()
            except SystemExit as stop:
                code = stop.code
        return code, *capsys.readouterr()

    return run


def _assert_one_sentence(result, *parts):
    code, stdout, stderr = result
    assert (code, stdout) == (2, ""), stderr
    line = stderr.splitlines()[-1]
    assert line.startswith("qgen-figure: ")
    for part in parts:
        assert part in line


def test_a_landscape_in_a_process_of_its_own(runs, tmp_path):
    output = tmp_path / "figures" / "x.svg"
    process = forks.run(forks.command, "figure", *_arguments(output, runs))
    assert process.returncode == 0, process.stderr
    assert process.stdout == f"{output}\n"
    # a bar for each run, over its passes
    assert re.search(r"float: 100%.* 9/9 ", process.stderr)
    assert re.search(r"w4a8: 100%.* 9/9 ", process.stderr)
    wanted = {"float", "w4a8", "loss [nats]", "x [filter norms]"}
    assert wanted <= _texts(output)
    assert [path.name for path in output.parent.iterdir()] == ["x.svg"]


def test_each_style_and_format(runs, tmp_path, call):
    for name, arguments in (
        ("a.svg", ["--style=surface", "--span=0.5"]),
        ("b.svg", ["--style=surface", "--span=0.5"]),
        ("c.svg", ["--style=surface", "--span=0.5", "--seed=1"]),
        ("d.png", ["--style=line"]),
        ("e.pdf", []),
    ):
        output = tmp_path / name
        code, stdout, stderr = call(*_arguments(output, runs[:1]), *arguments)
        assert (code, stdout) == (0, f"{output}\n"), stderr
        signature = _SIGNATURES[output.suffix[1:]]
        assert output.read_bytes().startswith(signature)
        passes = 3 if "--style=line" in arguments else 9
        assert f" {passes}/{passes} " in stderr
    assert len([*tmp_path.iterdir()]) == 5
    assert {"float", "−0.5", "loss [nats]"} <= _texts(tmp_path / "a.svg")
    # the same command draws the same file
    first, second, other = (
        (tmp_path / f"{name}.svg").read_bytes() for name in "abc"
    )
    assert first == second != other


def test_runs_of_the_same_bits_are_told_apart_by_their_paths(
    runs, tmp_path, call
):
    other = tmp_path / "other"
    other.symlink_to(runs[0])
    # the same path twice is one run
    paths = [runs[0], other, f"{runs[0]}/"]
    code, _, stderr = call(
        *_arguments(tmp_path / "x.svg", paths), "--style=line"
    )
    assert code == 0, stderr
    texts = _texts(tmp_path / "x.svg")
    assert {str(runs[0]), str(other)} <= texts
    assert "float" not in texts
    assert stderr.count("\n") == 2  # a bar for each


def test_bin_widths_of_quantized_runs(runs, tmp_path, call):
    output, other = tmp_path / "x.svg", tmp_path / "other"
    other.symlink_to(runs[1])
    code, _, stderr = call(*_arguments(output, runs[1:], "bin_width"))
    assert code == 0, stderr
    assert {"tiny", "4 bits", "bin width", "logits"} <= _texts(output)
    assert "1/1" in stderr
    for paths, parts in (
        (runs[::-1], [str(runs[0]), "no bins"]),
        ([runs[1], other], [str(other), "second run of 'tiny' at 4 bits"]),
    ):
        _assert_one_sentence(
            call(*_arguments(output, paths, "bin_width")), *parts
        )


@pytest.mark.full
def test_the_predicted_rise_of_one_run(runs, tmp_path, call):
    output = tmp_path / "x.svg"
    for run, texts in (
        (runs[0], {"Hessian", "bits", *"86432"}),
        (runs[1], {"Hessian", "layer", "logits", "all layers"}),
    ):
        code, _, stderr = call(*_arguments(output, [run], "predicted_rise"))
        assert code == 0, stderr
        assert texts <= _texts(output)
    _assert_one_sentence(
        call(*_arguments(output, runs, "predicted_rise")), "one run, not of 2"
    )


@pytest.mark.slow
def test_the_spectral_densities_of_twins(runs, tmp_path, call):
    output = tmp_path / "x.svg"
    arguments = _arguments(output, runs, "spectral_density")
    code, _, stderr = call(*arguments)
    assert code == 0, stderr
    wanted = {"float", "w4a8", "eigenvalue [nats / weight²]"}
    assert wanted <= _texts(output)
    assert "2/2" in stderr


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--kind=landscpae", ["landscpae", "<landscape"]),
        ("--output=x.jpeg", ["x.jpeg", ".svg, .png, .pdf"]),
        ("--output=x", ["x", ".svg, .png, .pdf"]),
        ("--style=pie", ["pie", "contour|surface|line"]),
        ("--num_examples=-1", ["num_examples", "-1"]),
        ("--span=wide", ["span", "wide"]),
    ],
)
def test_mistakes_in_flags(argument, parts, call):
    _assert_one_sentence(call(argument), *parts)


@pytest.mark.parametrize("missing", ["kind", "run_dirs", "output"])
def test_flags_that_must_be_given(missing, call):
    arguments = [
        argument
        for argument in _arguments("x.svg", ["runs/a"])
        if not argument.startswith(f"--{missing}=")
    ]
    _assert_one_sentence(call(*arguments), f"--{missing} is missing")


def test_mistakes_in_runs_and_files(runs, tmp_path, call):
    untrained = RunDirectory.create(tmp_path, tiny.config()).path
    (tmp_path / "file").write_text("")
    output = tmp_path / "x.svg"
    absent = tmp_path / "absent"
    for arguments, parts in (
        (_arguments(output, []), ["--run_dirs is empty"]),
        (_arguments(output, [runs[0], absent]), [str(absent), "config.json"]),
        (_arguments(output, [untrained]), [str(untrained), "not trained"]),
        (
            [*_arguments(output, runs), "--num_points=4"],
            ["odd num_points", "and 4"],
        ),
        (
            _arguments(tmp_path / "file" / "x.svg", runs),
            ["cannot write", "file/x.svg", "--output"],
        ),
    ):
        _assert_one_sentence(call(*arguments), *parts)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", untrained.name}


def test_help_teaches(call):
    code, stdout, stderr = call("--help")
    assert (code, stderr) == (0, "")
    assert "Examples:\n  qgen-figure --kind=landscape" in stdout
    assert max(map(len, stdout.splitlines())) <= 80
    assert f"<{'|'.join(landscape_figures.STYLES)}>" in stdout
