"""Legacy Keras in every order of imports, each order in its own process."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from concurrent import futures

import pytest

import qgen_tf
from qgen_tf import compat, errors

pytestmark = pytest.mark.slow
# name -> program; each imports TensorFlow for seconds, so they run side by side
GOOD = {
    "qgen_tf_alone": """
        import sys, qgen_tf
        assert "tensorflow" not in sys.modules
        assert "tf_keras" not in sys.modules
        assert "numpy" not in sys.modules
        assert "quantize_model" in dir(qgen_tf)
    """,
    "qgen_tf_first": """
        from qgen_tf import compat
        before = compat.keras  # TensorFlow's own messages are not ours
        print("start", flush=True)
        print("start", file=sys.stderr, flush=True)
        keras_cv = compat.keras_cv()
        assert keras_cv is compat.keras_cv()
        assert keras_cv.__name__ == "keras_cv"
        import tensorflow as tf
    """,
    "tensorflow_first": """
        import tensorflow as tf, qgen_tf, keras_cv
        from tensorflow.keras import layers
        import tf_keras
        assert layers.Layer is tf_keras.layers.Layer
    """,
    "tfmot_first": """
        import tensorflow_model_optimization, qgen_tf, keras_cv
        import tensorflow as tf
    """,
    "legacy_keras_first": """
        import tf_keras, qgen_tf, keras_cv, tensorflow as tf
    """,
    "tfds_first": """
        import tensorflow_datasets, qgen_tf, keras_cv
        import tensorflow as tf
    """,
    "keras_3_first": """
        import keras, qgen_tf, keras_cv, tensorflow as tf
        from qgen_tf import compat, errors
        model = keras.Sequential([keras.layers.Dense(1)], name="mine")
        for thing in (model, keras.layers.Dense(1)):
            try:
                compat.require_legacy(thing)
            except errors.ModelError as error:
                assert "keras.src." in str(error), error
                assert "from qgen_tf.compat import keras" in str(error)
            else:
                raise AssertionError("a Keras 3 object was let through")
    """,
}
# what every good program must end with
EPILOGUE = """
if "tensorflow" in sys.modules:
    import tf_keras
    assert tf.keras.layers.Layer is tf_keras.layers.Layer
    assert issubclass(keras_cv.layers.RandAugment, tf_keras.layers.Layer)
    from qgen_tf.compat import keras
    assert keras is tf_keras
print("fine")
"""
# name -> (program, value of TF_USE_LEGACY_KERAS, fragments of the message)
BAD = {
    "tf_keras_touched": (
        "import tensorflow as tf; tf.keras.layers; import qgen_tf",
        None,
        ["tf.keras was used before", "set TF_USE_LEGACY_KERAS=1 before"],
    ),
    "tensorflow_keras_imported": (
        "from tensorflow.keras import layers; import qgen_tf",
        None,
        ["tf.keras was used before", "import qgen_tf before tf.keras"],
    ),
    "keras_cv_first": (
        "import keras_cv, qgen_tf",
        None,
        ["keras_cv was used before", "import qgen_tf before keras_cv"],
    ),
    "variable_is_0": (
        "import qgen_tf",
        "0",
        ["TF_USE_LEGACY_KERAS=0 asks for Keras 3", "unset"],
    ),
    "variable_is_false": (
        "import qgen_tf",
        "False",
        ["TF_USE_LEGACY_KERAS=False asks for Keras 3", "unset"],
    ),
}
# of each kind another one stands for these; see --full
_FULL = ("legacy_keras_first", "tfds_first", "tf_keras_touched")


def _run(program, legacy=None):
    environment = dict(os.environ)
    environment.pop("TF_USE_LEGACY_KERAS", None)
    environment.pop("PYTHONWARNINGS", None)
    if legacy is not None:
        environment["TF_USE_LEGACY_KERAS"] = legacy
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def results(request):
    """Name -> the finished process of each program."""
    programs = {
        name: ("import sys\n" + textwrap.dedent(program) + EPILOGUE, None)
        for name, program in GOOD.items()
    }
    for name, (program, legacy, _) in BAD.items():
        programs[name] = program, legacy
    if not request.config.getoption("full"):
        for name in _FULL:
            del programs[name]
    with futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = pool.map(lambda program: _run(*program), programs.values())
        return dict(zip(programs, done, strict=True))


def _names(programs):
    return [
        pytest.param(name, marks=pytest.mark.full if name in _FULL else ())
        for name in programs
    ]


@pytest.mark.parametrize("name", _names(GOOD))
def test_order_that_works(results, name):
    process = results[name]
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "fine"


@pytest.mark.parametrize("name", _names(BAD))
def test_order_that_is_too_late(results, name):
    process = results[name]
    last = process.stderr.strip().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("qgen_tf.errors.StackError: ")
    for fragment in BAD[name][2]:
        assert fragment in last


def test_keras_cv_is_imported_quietly(results):
    process = results["qgen_tf_first"]
    assert process.stdout == "start\nfine\n"
    assert process.stderr.endswith("start\n")


def test_keras_cv_failure_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(errors.StackError, match="pip install 'keras-cv>="):
        compat.keras_cv()


def test_require_legacy_accepts_models_and_layers():
    dense = compat.keras.layers.Dense(1)
    compat.require_legacy(dense)
    compat.require_legacy(compat.keras.Sequential([dense]))


def test_require_legacy_names_what_it_found():
    with pytest.raises(errors.ModelError, match="found a builtins.dict"):
        compat.require_legacy({})


def test_check_env_reports_installed_versions():
    versions = compat.check_env()
    assert versions.keys() == compat.SUPPORTED.keys()
    assert versions["tensorflow"] == importlib.metadata.version("tensorflow")


def test_check_env_names_every_problem(monkeypatch):
    supported = {"numpy": "<1", "no-such-package": ">=1", "scipy": ">=1"}
    monkeypatch.setattr(compat, "SUPPORTED", supported)
    with pytest.raises(errors.StackError) as caught:
        compat.check_env()
    message = str(caught.value)
    numpy = importlib.metadata.version("numpy")
    assert f"numpy {numpy} is unsupported (supported: <1)" in message
    assert "no-such-package is missing (supported: >=1)" in message
    assert "scipy" not in message


def test_doctor_prints_versions(capsys, monkeypatch):
    assert compat.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(compat.SUPPORTED)
    monkeypatch.setattr(compat, "SUPPORTED", {"no-such-package": ">=1"})
    assert compat.main() == 2
    assert "no-such-package is missing" in capsys.readouterr().err


@pytest.mark.parametrize("module", [qgen_tf, compat])
def test_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018
