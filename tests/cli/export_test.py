"""`qgen-export` as a user meets it: exit status, mistakes, help."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest

from qgen_tf.data import corruptions
from qgen_tf.study import exporting
from qgen_tf.training import TRAINED_FILE, RunDirectory
from tests import imports, tiny

_CONTENT = b"a model"


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "qgen_tf.cli.export", *arguments],
        env={"PYTHONPATH": str(imports.REPOSITORY), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _in_a_child(code, values=None):
    """Runs code beside the program, whose flags other programs have, too."""
    preamble = (
        "import json, sys\n"
        "from absl import flags\n"
        "from absl.testing import flagsaver\n"
        "from qgen_tf import errors\n"
        "from qgen_tf.cli import export as program\n"
        "flags.FLAGS.mark_as_parsed()\n"
        "values = json.loads(sys.argv[1])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", preamble + code, json.dumps(values)],
        env={"PYTHONPATH": str(imports.REPOSITORY), "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(output)


def _finish(process):
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def _record(verdict):
    interval = {"value": 0.1, "low": -0.1, "high": 0.3}
    gap = {"accuracy": interval, "loss": interval}
    tested = {
        "margin": 0.5,
        "p_value": 0.25,
        "low": -0.1,
        "high": 0.3,
        "equivalent": False,
    }
    split = {
        "num_examples": 7,
        "accuracy": 50.0,
        "loss": 1.0,
        "trained_accuracy": 50.0,
        "trained_loss": 1.0,
        "argmax_agreement": 99.0,
        "max_steps": 2.0,
        "argmax_agreement_deployed": 100.0,
        "max_steps_deployed": 1.0,
        "equivalence": tested,
        "mcnemar": {"only_ours": 1, "only_theirs": 2, "p_value": 1.0},
    }
    return {
        "verdict": verdict,
        "settings": json.loads(
            json.dumps(dataclasses.asdict(exporting.DEFAULTS))
        ),
        "sha256": hashlib.sha256(_CONTENT).hexdigest(),
        **dict.fromkeys(("keras_gap", "tflite_gap", "difference"), gap),
        "equivalence": tested,
        **dict.fromkeys(("train", "test"), split),
        "corrupted": None,
        "num_bytes": len(_CONTENT),
        "float_operators": ["MEAN", "CONV_2D", "MEAN"],
        "kernels": "xnnpack",
        "expand_low_bits": False,
    }


def _run_with(folder, verdict):
    """Makes a run that was verified."""
    folder.mkdir()
    run = RunDirectory.create(folder, tiny.config())
    run.write_json(TRAINED_FILE, {})
    run.write_json(exporting.VERIFICATION_FILE, _record(verdict))
    (run.path / exporting.MODEL_FILE).write_bytes(_CONTENT)
    return run


@pytest.mark.slow
def test_the_verdict_is_the_exit_status(tmp_path):
    statuses = {"same": 0, "different": 1, "cannot tell": 2}
    processes = []
    for name, verdict in enumerate(statuses):
        run = _run_with(tmp_path / str(name), verdict)
        processes.append(_start(f"--run_dir={run.path}", "--verify"))
    for process, (verdict, status) in zip(
        processes, statuses.items(), strict=True
    ):
        code, stdout, stderr = _finish(process)
        assert code == status, stderr
        assert stdout.startswith(f"same gap as the trained model: {verdict}\n")
        assert "in float: 2 MEAN, 1 CONV_2D" in stdout
        assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"severity": 2}, "--severity has no effect without --corruption"),
        ({"corruption": "fog"}, "--corruption has no effect without --verify"),
        ({"margin": 1.0}, "without --verify or --compare or --adb or --ssh"),
        ({"kernels": "builtin"}, "without --verify or --explain"),
        ({"num_examples": 3}, "no effect without --bundle"),
        ({"ssh": "pi"}, "no effect without --bundle"),
        ({"verify": True, "explain": True}, "--verify and --explain are"),
        ({"bundle": "x", "compare": "y"}, "--bundle and --compare are"),
        ({"bundle": "x", "adb": True, "ssh": "pi"}, "--adb and --ssh are"),
    ],
)
def test_flags_that_exclude_or_miss_one_another(values, message):
    code = (
        "with flagsaver.flagsaver(**values):\n"
        "    try:\n"
        "        program._check_flags()\n"
        "    except errors.ConfigError as error:\n"
        "        print(json.dumps(str(error)))\n"
        "program._check_flags()"
    )
    assert message in _in_a_child(code, values)


@pytest.mark.slow
def test_mistakes(tmp_path):
    done = f"--run_dir={_run_with(tmp_path / 'done', 'same').path}"
    (tmp_path / "new").mkdir()
    new = RunDirectory.create(tmp_path / "new", tiny.config()).path
    cases = {
        (done, "--storage=int3"): "--storage=int3",
        (done, "--verify", "--margin=0"): "margin is 0.0",
        (done, "--verify", "--corruption=rain"): "'rain' is unknown",
        (done, "--verify", "--corruption=fog", "--severity=6"): "severity is 6",
        (f"--run_dir={new}", "--verify"): "is not trained to the end",
    }
    processes = [_start(*arguments) for arguments in cases]
    for process, message in zip(processes, cases.values(), strict=True):
        code, stdout, stderr = _finish(process)
        assert code == 2
        assert stdout == ""
        last = stderr.splitlines()[-1]
        assert last.startswith("export.py: ") and message in last
        assert "Traceback" not in stderr


def test_help_and_defaults():
    code = (
        "print(json.dumps([\n"
        "    program._CORRUPTION._flagvalues['corruption'].help,\n"
        "    program._MARGIN.default,\n"
        "    program._STORAGE.default,\n"
        "    program._KERNELS.default,\n"
        "]))"
    )
    text, *defaults = _in_a_child(code)
    for kind in corruptions.CORRUPTIONS:
        assert kind in " ".join(text.split())
    usual = exporting.DEFAULTS
    assert defaults == [usual.margin, usual.storage, usual.kernels]
