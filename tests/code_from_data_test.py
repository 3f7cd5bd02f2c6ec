"""Nothing that is read from a file is run: no call that could do so."""

import ast
import pathlib

import pytest

from tests import imports

_FOLDERS = ("qgen_tf", "export", "configs")
# what a call may end in -> why it is not called
_FORBIDDEN = {
    "eval": "runs text",
    "exec": "runs text",
    "__import__": "runs what text names",
    "loads": "of pickle",
    "Unpickler": "of pickle",
    "read_pickle": "of pandas",
    "unsafe_load": "of yaml",
    "full_load": "of yaml",
    "system": "runs text in a shell",
    "popen": "runs text in a shell",
    "extractall": "follows names out of a folder",
    "unpack_archive": "follows names out of a folder",
    "model_from_json": "may hold Lambda layers, which are code",
    "model_from_config": "may hold Lambda layers, which are code",
    "enable_unsafe_deserialization": "lets Lambda layers run",
}
# calls of these names that read no code
_HARMLESS = {"json.loads", "platform.system"}
_LOADERS = ("pickle", "torch", "yaml", "marshal")
_OF_KERAS = ("keras", "tf", "tf_keras")
_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal"}


def _sources():
    return sorted(
        path
        for folder in _FOLDERS
        for path in (imports.REPOSITORY / folder).rglob("*.py")
    )


def _found(text):
    """Returns (line, what) of what a source must not have."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        elif isinstance(node, ast.Call):
            found += [(node.lineno, why) for why in _wrong(node)]
            continue
        else:
            continue
        found += [(node.lineno, name) for name in names if name in _MODULES]
    return found


def _wrong(call):
    """Yields what is wrong with a call."""
    name = ast.unparse(call.func)
    last = name.split(".")[-1]
    settings = {
        keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords
    }
    if last in _FORBIDDEN and name not in _HARMLESS:
        yield f"{name}: {_FORBIDDEN[last]}"
    if name in ("compile", "builtins.compile"):  # not that of a model
        yield f"{name}: makes code of text"
    if settings.get("allow_pickle") not in (None, "False"):
        yield f"{name}: allow_pickle"
    if settings.get("shell") not in (None, "False"):
        yield f"{name}: runs text in a shell"
    if settings.get("safe_mode") not in (None, "True"):
        yield f"{name}: lets Lambda layers run"
    if last == "load" and name.startswith(
        ("pickle", "torch", "yaml", "marshal")
    ):
        yield f"{name}: may run code"
    if last == "load_model" and name.startswith(_OF_KERAS):
        yield f"{name}: a file may hold Lambda layers, which are code"


@pytest.mark.parametrize(
    "path",
    _sources(),
    ids=lambda path: str(path.relative_to(imports.REPOSITORY)),
)
def test_sources_run_no_data(path: pathlib.Path):
    assert _found(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "eval(text)",
        "builtins.exec(text)",
        "compile(text, 'name', 'exec')",
        "import pickle",
        "from cloudpickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pickle.load(file)",
        "torch.load(path)",
        "yaml.load(text)",
        "pd.read_pickle(path)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "archive.extractall()",
        "keras.models.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.models.model_from_json(text)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_what_is_looked_for_is_found(text):
    assert len(_found(text)) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "json.loads(text)",
        "platform.system()",
        "re.compile('a')",
        "model.compile('sgd')",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "training.load_model(run_dir)",
        "subprocess.run(['ls'])",
    ],
)
def test_what_is_harmless_is_left_alone(text):
    assert _found(text) == []
