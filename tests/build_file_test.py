"""BUILD says what the files and their imports say."""

import configparser
import difflib
import re

import pytest

from tests import build_file, imports

# measured in environments of their own, or skipped
PEERS = {"brevitas", "qkeras", "torch"}


def test_build_is_up_to_date():
    written = (imports.REPOSITORY / "BUILD").read_text()
    diff = difflib.unified_diff(
        written.splitlines(),
        build_file.render().splitlines(),
        "BUILD",
        "the tree",
        lineterm="",
    )
    message = "\n".join(diff)
    assert not message, f"run `python -m tests.build_file`:\n{message}"


def test_every_foreign_import_is_declared():
    parser = configparser.ConfigParser()
    parser.read(imports.REPOSITORY / "setup.cfg")
    declared = parser["options"]["install_requires"]
    extras = parser["options.extras_require"]
    for_tests = declared + extras["test"] + extras["peers"]
    known = imports.modules()
    for module, path in known.items():
        allowed = for_tests if module.startswith("tests") else declared
        names = set(re.findall(r"^[\w-]+", allowed, re.MULTILINE))
        # Keras 3 comes with TensorFlow; only a test of its refusal names it
        names |= {"keras"} if module == "tests.compat_test" else set()
        names |= PEERS if module.startswith("benchmarks") else set()
        for name in imports.imported(path, known) - known.keys():
            distribution = build_file.distribution(name)
            assert distribution is None or distribution in names, (
                f"{module} imports {name}: add {distribution} to setup.cfg"
            )


@pytest.fixture
def tree(tmp_path):
    files = {
        "setup.cfg": (
            "[options.entry_points]\n"
            "console_scripts =\n"
            "    qgen-train = qgen_tf.cli.train:main\n"
            "    qgen-later = qgen_tf.cli.later:main\n"
            "    qgen-never = qgen_tf.cli.never:main\n"
        ),
        "qgen_tf/__init__.py": "from qgen_tf import data as data, errors",
        "qgen_tf/py.typed": "",
        "qgen_tf/errors.py": "import os",
        "qgen_tf/data/__init__.py": "",
        "qgen_tf/data/digits.py": (
            "import numpy as np\n"
            "def f():\n"
            "    from qgen_tf import errors\n"
            "    from sklearn import datasets\n"
        ),
        "qgen_tf/cli/train.py": (
            "from qgen_tf.data import digits\n"
            "if __name__ == '__main__':\n"
            "    print(digits)\n"
        ),
        "qgen_tf/cli/later.py": "",
        "tests/conftest.py": "import pytest",
        "tests/data/digits_test.py": (
            "import pytest, qgen_tf\n@pytest.mark.slow\ndef test(): ..."
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_rules_follow_files_and_imports(tree):
    rules = build_file.render(tree).split("\n\n")
    kinds = '"py_binary", "py_library", "py_test")'
    assert kinds in build_file.render(tree)
    assert rules[-7:] == [
        """\
py_library(
    name = "qgen_tf",
    deps = [
        ":qgen_tf_base",
        ":qgen_tf_data",
    ],
)""",
        """\
py_library(
    name = "qgen_tf_base",
    srcs = [
        "qgen_tf/__init__.py",
        "qgen_tf/errors.py",
    ],
    data = ["qgen_tf/py.typed"],
)""",
        """\
py_library(
    name = "qgen_tf_cli",
    srcs = [
        "qgen_tf/cli/later.py",
        "qgen_tf/cli/train.py",
    ],
    deps = [":qgen_tf_data"],
)""",
        """\
py_library(
    name = "qgen_tf_data",
    srcs = [
        "qgen_tf/data/__init__.py",
        "qgen_tf/data/digits.py",
    ],
    deps = [
        ":qgen_tf_base",
        requirement("numpy"),
        requirement("scikit-learn"),
    ],
)""",
        """\
py_library(
    name = "tests",
    testonly = True,
    srcs = ["tests/conftest.py"],
    deps = [requirement("pytest")],
)""",
        """\
py_binary(
    name = "qgen-train",
    srcs = ["qgen_tf/cli/train.py"],
    main = "qgen_tf/cli/train.py",
    deps = [
        ":configs",
        ":qgen_tf_cli",
    ],
)""",
        """\
py_test(
    name = "data_digits_test",
    size = "large",
    srcs = [
        "tests/data/digits_test.py",
        "tests/run_pytest.py",
    ],
    args = ["tests/data/digits_test.py"],
    main = "tests/run_pytest.py",
    deps = [
        ":qgen_tf",
        ":tests",
        requirement("pytest"),
    ],
)
""",
    ]


def test_the_graph_has_no_cycle():
    rules = re.findall(
        r'name = "([^"]+)"(.*?)\n\)', build_file.render(), re.DOTALL
    )
    graph = {
        name: set(re.findall(r'":([^"]+)"', body)) - {"tree"}
        for name, body in rules
    }
    while graph:
        ready = {name for name, deps in graph.items() if not deps & set(graph)}
        assert ready, f"targets that depend on each other: {sorted(graph)}"
        graph = {name: graph[name] for name in graph.keys() - ready}
