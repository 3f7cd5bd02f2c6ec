"""Devices are played by programs named adb, ssh and scp on the PATH."""

import json
import os
import shutil
import sys

import pytest

from export import remote, run_on_device
from qgen_tf import errors
from tests.export import bundles

# `log` is where arguments are noted, `device` the device's file system, and
# `tools` all programs there.
FAKE = """\
#!{python}
import json, os, pathlib, shutil, subprocess, sys

device = pathlib.Path({device!r})
program, *arguments = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with open({log!r}, "a") as log:
    print(json.dumps([program, *arguments]), file=log)
{trouble}

def there(path):
    return device / path.split(":")[-1].lstrip("/")

if program == "adb":
    verb, *rest = arguments
else:
    options, rest = arguments[:arguments.index("--")], arguments[
        arguments.index("--") + 1:
    ]
    verb = "shell" if program == "ssh" else "push"
    if verb == "shell":
        rest = rest[1:]
    elif ":" in rest[0]:
        verb = "pull"
if verb == "shell":
    (command,) = rest
    command = command.replace("/data/", f"{{device}}/data/")
    sys.exit(subprocess.call(
        ["/bin/sh", "-c", command], cwd=device, env={{"PATH": {tools!r}}}
    ))
*sources, target = rest
for source in sources:
    source = there(source) if verb == "pull" else source
    shutil.copy(source, target if verb == "pull" else there(target))
"""
TARGETS = {"adb": remote.Adb(), "ssh": remote.Ssh("pi@board.local")}


class Device:
    """A device, and the programs of this machine that reach it."""

    def __init__(self, folder):
        self.files = folder / "device"
        self.log = folder / "log"
        self.programs = folder / "programs"
        self.tools = folder / "tools"
        for path in (self.programs, self.tools, self.files / "data/local/tmp"):
            path.mkdir(parents=True)
        for tool in ("rm", "mkdir"):
            (self.tools / tool).symlink_to(shutil.which(tool))
        self.install("adb", "ssh", "scp")
        self.python(f'exec {sys.executable} -I "$@"')

    def install(self, *programs, trouble=""):
        text = FAKE.format(
            python=sys.executable,
            device=str(self.files),
            log=str(self.log),
            tools=str(self.tools),
            trouble=trouble,
        )
        for program in programs:
            _program(self.programs / program, text)

    def python(self, script):
        """Makes python3 of the device a shell script."""
        _program(self.tools / "python3", f"#!/bin/sh\n{script}\n")

    def calls(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def _program(path, text):
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def device(tmp_path, monkeypatch):
    (tmp_path / "machine").mkdir()
    device = Device(tmp_path / "machine")
    monkeypatch.setenv("PATH", str(device.programs))
    return device


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "out"
    bundles.write(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "-o x; touch y")


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_is_pushed_run_and_fetched(target, device, folder, capfd):
    (folder / "device_result.json").write_text("old")
    (folder / "mine.txt").write_text("not of the bundle")
    path = remote.run(folder, target=TARGETS[target])
    assert path == folder / "device_result.json"
    result = json.loads(path.read_text())
    assert result["bundle"] == run_on_device.bundle_id(str(folder))
    assert result["test"]["different_outputs"] == 0
    assert "train 70 of 70 examples" in capfd.readouterr().out
    # nothing stays behind, on either side
    left = [path for path in device.files.rglob("*") if path.is_file()]
    assert left == []
    assert not list(folder.glob(".fetching-*"))
    copied = next(c for c in device.calls() if c[0] == "scp" or "push" in c)
    names = {argument[2:] for argument in copied if argument[:2] == "./"}
    assert names == {
        *("README.txt", "manifest.json", "model.tflite", "run_on_device.py"),
        *("test.npz", "train.npz"),
    }


def test_ssh_asks_for_no_password(device, folder):
    remote.run(folder, target=TARGETS["ssh"])
    for program, *arguments in device.calls():
        assert program in ("ssh", "scp")
        options = arguments[: arguments.index("--")]
        assert "BatchMode=yes" in options and "ConnectTimeout=15" in options
        after = arguments[arguments.index("--") + 1 :]
        assert any(a.startswith("pi@board.local") for a in after)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=touch x",
        "a b",
        "a;b",
        "pi@-x",
        "h:22",
        "$(x)",
        "h\n",
    ],
)
def test_a_host_is_a_name(host):
    with pytest.raises(errors.ConfigError, match="is not a host"):
        remote.Ssh(host)


def test_hosts_that_are_names():
    for host in ("pi", "pi@board.local", "192.168.1.7", "a_b@c-d"):
        assert remote.Ssh(host).name == host


def _refused(target, folder):
    before = sorted(folder.iterdir())
    with pytest.raises(errors.ExportError) as caught:
        remote.run(folder, target=TARGETS[target])
    assert sorted(folder.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "program"), [("adb", "adb"), ("ssh", "ssh"), ("ssh", "scp")]
)
def test_a_missing_program_is_named(target, program, device, folder):
    (device.programs / program).unlink()
    message = _refused(target, folder)
    assert message.startswith(f"{program} is not installed on this machine")


def _fail(status, message):
    return f"print({message!r}, file=sys.stderr); sys.exit({status})"


@pytest.mark.parametrize(
    ("target", "status", "said", "message"),
    [
        ("ssh", 255, "Connection timed out", "ssh cannot reach pi@board.local"),
        ("adb", 1, "adb: no devices/emulators found", "no devices/emulators"),
    ],
)
def test_a_device_that_is_not_there(
    target, status, said, message, device, folder
):
    device.install(target, trouble=_fail(status, f"noise\n{said}"))
    found = _refused(target, folder)
    assert message in found and said in found


def test_a_copy_that_fails(device, folder):
    device.install("scp", trouble=_fail(1, "scp: write: No space left"))
    assert "exit status 1: scp: write: No space left" in _refused("ssh", folder)


@pytest.mark.parametrize("target", TARGETS)
def test_a_device_without_python(target, device, folder):
    (device.tools / "python3").unlink()
    message = _refused(target, folder)
    assert "there is no python3 on " in message and "3.9" in message


def test_a_device_without_the_runtime(device, folder):
    device.python(
        f'exec {sys.executable} -I -c "import runpy, sys; '
        "sys.modules['ai_edge_litert'] = None; sys.argv = sys.argv[1:]; "
        'runpy.run_path(sys.argv[0], run_name=\'__main__\')" "$@"'
    )
    message = _refused("ssh", folder)
    assert "ai-edge-litert is missing" in message
    assert "pip install numpy ai-edge-litert" in message


def test_a_device_that_does_not_answer(device):
    device.install("ssh", trouble="import time; time.sleep(60)")
    target = TARGETS["ssh"]
    with pytest.raises(errors.ExportError, match="answer ssh within 1 seconds"):
        remote._call(target, target.shell("true"), seconds=1)


def test_results_that_are_none(device, folder):
    device.python("echo '{}' > device_result.json")
    assert "is not a device's result" in _refused("ssh", folder)
    device.python(":")
    assert "failed on pi@board.local" in _refused("ssh", folder)


def test_the_result_of_another_bundle_is_refused(device, folder, tmp_path):
    bundles.write(tmp_path / "other", facts={"run": "other"})
    result = tmp_path / "result.json"
    run_on_device.write_result(str(result), bundles.run(tmp_path / "other"))
    (device.tools / "cp").symlink_to(shutil.which("cp", path="/usr/bin:/bin"))
    device.python(f"cp {result} device_result.json")
    assert "the result of another bundle" in _refused("ssh", folder)


def test_a_changed_bundle_is_not_pushed(device, folder):
    (folder / "test.npz").write_bytes(b"")
    assert "is not as the manifest has it" in _refused("ssh", folder)
    assert not os.path.exists(device.log)
