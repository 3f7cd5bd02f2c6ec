"""A trial that nothing disturbed."""

import pytest

from qgen_tf import errors
from qgen_tf.study import trial
from tests import tiny
from tests.faults.disk import public_folder as public_folder


@pytest.fixture(scope="session")
def config():
    config = tiny.config(epochs=2)
    config.corruptions.kinds = ("contrast",)
    config.corruptions.severities = (1,)
    return config


@pytest.fixture(scope="session")
def done(config, tmp_path_factory):
    """The run of a float model that went through every stage; not to change."""
    return trial.run(config, tmp_path_factory.mktemp("done"))


@pytest.fixture
def refused():
    """Expects an error of one line."""

    def expect(message, kind=errors.RunDirectoryError):
        return pytest.raises(kind, match=f"^[^\\n]*{message}[^\\n]*$")

    return expect
