"""The pins of the continuous integration fit what setup.cfg declares."""

import configparser

import pytest
from packaging import requirements, utils, version

from tests import imports

# of this project and its platform-bound libraries, there is no pin
UNPINNED = ("qgen-tf", "nvidia-")


def _pins():
    """Returns normalized name -> version, in the order of the file."""
    lines = (imports.REPOSITORY / "constraints.txt").read_text().splitlines()
    entries = [line.split("==") for line in lines if not line.startswith("#")]
    return [(utils.canonicalize_name(name), pin) for name, pin in entries]


def _declared():
    parser = configparser.ConfigParser()
    parser.read(imports.REPOSITORY / "setup.cfg")
    extras = parser["options.extras_require"]
    text = parser["options"]["install_requires"] + extras["test"]
    return [
        requirements.Requirement(line)
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize("requirement", _declared(), ids=str)
def test_a_dependency_is_pinned_within_its_bounds(requirement):
    pin = dict(_pins())[utils.canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)


def test_a_pin_is_a_name_and_a_version():
    names = [name for name, _ in _pins()]
    assert len(names) == len(set(names)) > 100
    for name, pin in _pins():
        assert str(version.Version(pin)) == pin
        assert not name.startswith(UNPINNED)
