"""`qgen-export` as a user meets it: exit status, mistakes, help."""

import dataclasses
import hashlib
import importlib
import json

import pytest
from absl import flags
from absl.testing import flagsaver

from qgen_tf import errors
from qgen_tf.data import corruptions
from qgen_tf.study import exporting
from qgen_tf.training import TRAINED_FILE, RunDirectory
from tests import forks, tiny

_CONTENT = b"a model"


def _run(*arguments):
    return forks.run(forks.command, "export", *arguments)


def _program():
    """Imports the program; other programs have flags of the same names."""
    program = importlib.import_module("qgen_tf.cli.export")
    flags.FLAGS.mark_as_parsed()
    return program


def _in_a_child(function, *arguments):
    result = forks.run(function, *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


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


def test_the_verdict_is_the_exit_status(tmp_path):
    statuses = {"same": 0, "different": 1, "cannot tell": 2}
    for name, (verdict, status) in enumerate(statuses.items()):
        run = _run_with(tmp_path / str(name), verdict)
        found = _run(f"--run_dir={run.path}", "--verify")
        assert found.returncode == status, found.stderr
        assert found.stdout.startswith(
            f"same gap as the trained model: {verdict}\n"
        )
        assert "in float: 2 MEAN, 1 CONV_2D" in found.stdout
        assert "Traceback" not in found.stderr


def _refusal(values):
    """Prints what is said of the values of flags, of which one is refused."""
    program = _program()
    with flagsaver.flagsaver(**values):
        try:
            program._check_flags()
        except errors.ConfigError as error:
            print(json.dumps(str(error)))
    program._check_flags()


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
    assert message in _in_a_child(_refusal, values)


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
    for arguments, message in cases.items():
        found = _run(*arguments)
        assert (found.returncode, found.stdout) == (2, "")
        last = found.stderr.splitlines()[-1]
        assert last.startswith("qgen-export: ") and message in last
        assert "Traceback" not in found.stderr


def _described():
    """Prints the help of a flag and the defaults of others."""
    program = _program()
    holders = (program._MARGIN, program._STORAGE, program._KERNELS)
    print(
        json.dumps(
            [
                program._CORRUPTION._flagvalues["corruption"].help,
                *(holder.default for holder in holders),
            ]
        )
    )


def test_help_and_defaults():
    text, *defaults = _in_a_child(_described)
    for kind in corruptions.CORRUPTIONS:
        assert kind in " ".join(text.split())
    usual = exporting.DEFAULTS
    assert defaults == [usual.margin, usual.storage, usual.kernels]
