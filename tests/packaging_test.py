"""What is shipped is whole: the sdist, the wheel, the console scripts."""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from qgen_tf import compat
from tests import imports

# what is not source; folders that start with a dot hold caches and history
NOT_SOURCE = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
SHIPPED = ("BUILD", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "tests")


def _run(*command, **arguments):
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=300, **arguments
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A copy of the tree, its sdist and, built from that, the wheel."""
    source = tmp_path_factory.mktemp("sources") / "qgen_tf"
    ignore = shutil.ignore_patterns(*NOT_SOURCE)
    shutil.copytree(imports.REPOSITORY, source, ignore=ignore)
    built = tmp_path_factory.mktemp("built")
    _run(
        *(sys.executable, "-m", "build", "--no-isolation"),
        *("--outdir", built, source),
    )
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    return source, sdist, wheel


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """The folder of the console scripts of an environment with the wheel.

    The environment sees the dependencies of this one through a path file.
    """
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = _run(python, "-c", code).strip()
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "--python", python),
        *("install", "--no-deps", "--no-index", archives[2]),
    )
    here = _run(sys.executable, "-c", code)
    with open(os.path.join(packages, "dependencies.pth"), "w") as file:
        file.write(here)
    return folder / "bin"


@pytest.mark.slow
def test_wheel_holds_every_module_and_data_file(archives):
    root, _, wheel = archives
    names = zipfile.ZipFile(wheel).namelist()
    for module, path in imports.modules(root).items():
        packaged = path.relative_to(root).as_posix() in names
        expected = module.split(".")[0] in ("qgen_tf", "export", "configs")
        assert packaged == expected, module
    assert "qgen_tf/py.typed" in names
    for template in (root / "qgen_tf").rglob("*.html"):
        assert template.relative_to(root).as_posix() in names
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.slow
def test_sdist_can_be_tested(archives):
    root, sdist, _ = archives
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names.issuperset(SHIPPED)
    for path in imports.modules(root).values():
        name = path.relative_to(root).as_posix()
        assert name in names or name.startswith(("benchmarks/", "examples/"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "qgen",
        "qgen-doctor",
        "qgen-export",
        "qgen-figure",
        "qgen-measure",
        "qgen-report",
        "qgen-sweep",
        "qgen-train",
    ],
)
def test_script_explains_itself_from_any_folder(installed, script, tmp_path):
    output = _run(installed / script, "--help", cwd=tmp_path)
    assert "Examples" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        # the lab note was read, or its fields would not be known
        (["--config=quickstart", "--config.nonsense=1"], "nonsense"),
        (["--config=absent"], "'quickstart'"),
    ],
)
def test_config_is_found_by_name(installed, flags, complaint, tmp_path):
    process = subprocess.run(
        [installed / "qgen-train", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 2, process.stderr
    assert complaint in process.stderr
    assert "Traceback" not in process.stderr
    assert ("no config" in process.stderr) == (flags[0] == "--config=absent")


def test_bounds_of_the_stack_are_those_that_the_doctor_checks():
    parser = configparser.ConfigParser()
    parser.read(imports.REPOSITORY / "setup.cfg")
    declared = parser["options"]["install_requires"].splitlines()
    assert parser["options"]["python_requires"] == compat.SUPPORTED["python"]
    for name, bounds in compat.SUPPORTED.items():
        assert name == "python" or name + bounds in declared
