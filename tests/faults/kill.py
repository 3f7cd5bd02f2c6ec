"""Kills commands at random moments, and holds what they leave to the bytes.

A round gives each of qgen-train, qgen-measure, qgen-export and qgen-sweep some
kills, one after the other, each time where the one before has left it, and
then lets it finish. Run as a program, it takes as many rounds as it needs:

    python -m tests.faults.kill --kills=30 --seed=0
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time

import pandas as pd
import psutil

from tests import forks

STAGES = ("train", "measure", "export", "sweep")
KILLS_A_ROUND = 10
_INTERVAL = 0.05  # seconds

NOTE = """
from tests import tiny

def get_config():
    config = tiny.config()
    config.measures.names = ("average_sharpness",)
    config.corruptions.kinds = ("contrast",)
    config.corruptions.severities = (1,)
    return config
"""
# of data that tells of times, and not of models
_TIMES = ("seconds.json", "verification.html", "verification.txt")
_TIMED = ("latency_ms", "seconds")
_PUBLISHED = "tiny"

# as in the tests: one thread for each process
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _arguments(stage, workdir):
    """Returns the flags of a command; the sweep has a model of its own."""
    note = f"--config={workdir.parent / 'note.py'}"
    here = f"--workdir={workdir}"
    if stage == "train":
        bits = ("weight_bits=4", "activation_bits=8")
        return [note, here, *(f"--config.quantization.{one}" for one in bits)]
    if stage == "sweep":
        return [note, here, "--config.seed=1", "--config.twins=()"]
    (twin,) = workdir.glob("*-w4a8-*")
    if stage == "export":
        return [f"--run_dir={twin}", "--verify", "--margin=100"]
    return [
        f"--run_dir={twin}",
        "--settings.num_examples=64",
        "--settings.average_sharpness.num_samples=2",
    ]


def _start(stage, workdir):
    """Forks a command: to import TensorFlow takes longer than most of them."""
    arguments = ("--deterministic", *_arguments(stage, workdir))
    log = workdir.parent / "log.txt"
    return forks.start((log, log), forks.command, stage, *arguments)


def _processes(stage, process):
    """Returns a command and, of a sweep, its workers, as far as they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        command = psutil.Process(process.pid)
        if stage != "sweep":
            return [command]
        return [command, *command.children(recursive=True)]
    return []


def _spent(stage, process):
    """Returns the processor time of a command and its workers, in seconds."""
    total = 0.0
    for one in _processes(stage, process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(one.cpu_times()[:4])  # and of what they waited for
    return total


def _finish(stage, workdir):
    """Runs a command to its end; returns the processor time it took."""
    process = _start(stage, workdir)
    spent = 0.0
    while process.is_alive():
        spent = max(spent, _spent(stage, process))
        time.sleep(_INTERVAL)
    _require_success(stage, workdir, process)
    return spent


def _require_success(stage, workdir, process):
    if process.exitcode:
        log = (workdir.parent / "log.txt").read_text(errors="replace")
        raise AssertionError(f"{stage}: {process.exitcode}\n{log[-3000:]}")


def _kill(stage, workdir, moment, generator):
    """Kills a command, or a worker of it, when it has spent so much.

    Returns:
      Whether that was before its end.
    """
    process = _start(stage, workdir)
    while process.is_alive() and _spent(stage, process) < moment:
        time.sleep(_INTERVAL)
    found = _processes(stage, process)
    if not found:
        return False
    victim = generator.choice([found[0], *filter(_is_worker, found[1:])])
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
    process.join()
    if victim.pid == process.pid:
        return process.exitcode == -signal.SIGKILL
    _require_success(stage, workdir, process)  # it starts another worker
    return True


def _is_worker(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] == ["ray::work"]
    return False


def undisturbed(folder, stages=STAGES):
    """Runs commands once.

    Returns:
      The folder of run directories, and the processor time of each command.
    """
    workdir = _prepare(folder)
    return workdir, {stage: _finish(stage, workdir) for stage in stages}


def _prepare(folder):
    folder.mkdir()
    (folder / "note.py").write_text(NOTE)
    (folder / "runs").mkdir()
    return folder / "runs"


def disturbed(folder, kills, seconds, generator):
    """Runs every command, and kills it so many times before it may finish.

    Args:
      folder: to make.
      kills: stage to the number of kills.
      seconds: stage to the processor time that it takes.
      generator: of the moments.

    Returns:
      The folder of run directories.
    """
    workdir = _prepare(folder)
    for stage in STAGES:
        before = folder / f"before-{stage}"
        shutil.copytree(workdir, before)
        left = kills[stage]
        while left:
            moment = generator.uniform(0.0, seconds[stage])
            if _kill(stage, workdir, moment, generator):
                left -= 1
                print(f"killed {stage} after {moment:.2f} s", flush=True)
            else:  # it was faster, and is done
                shutil.rmtree(workdir)
                shutil.copytree(before, workdir)
        _finish(stage, workdir)
    return workdir


def results(workdir):
    """Returns relative path -> content of all that the commands leave.

    Times are left out, and so are the report and the figures of TensorBoard,
    which show them.
    """
    contents = {}
    for path in sorted(workdir.rglob("*")):
        name = str(path.relative_to(workdir))
        if path.is_dir() or path.suffix == ".lock" or path.name == ".lock":
            continue
        if path.name == "records.parquet":
            records = pd.read_parquet(path)
            timed = [c for c in records if any(t in c for t in _TIMED)]
            contents[name] = records.drop(columns=timed).to_csv()
        elif path.name == "verification.json":
            record = json.loads(path.read_text())
            del record["latency_ms"]
            contents[name] = record
        elif path.name not in _TIMES and not name.startswith(_PUBLISHED + "/"):
            contents[name] = path.read_bytes()
    return contents


def require_same(expected, found):
    """Raises an AssertionError unless two folders of runs are the same."""
    expected, found = results(expected), results(found)
    assert len(expected) > 25
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    return len(expected)


def _main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=30, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    drawn = generator.choices(STAGES, k=arguments.kills)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        expected, seconds = undisturbed(folder / "undisturbed")
        for start in range(0, len(drawn), KILLS_A_ROUND):
            kills = collections.Counter(drawn[start : start + KILLS_A_ROUND])
            found = disturbed(
                folder / f"disturbed-{start}", kills, seconds, generator
            )
            count = require_same(expected, found)
    counts = dict(collections.Counter(drawn))
    print(f"{len(drawn)} kills, {counts}: {count} files are the same bytes")


if __name__ == "__main__":
    _main()
