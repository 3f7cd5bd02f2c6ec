"""Renders BUILD from the files and their imports.

Run `python -m tests.build_file` to rewrite it after adding, moving or
rewiring a file. The text is formatted as buildifier formats it.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterable
from pathlib import Path

from tests import imports

HEADER = """\
# One py_library a folder, one py_test a test file. Rewritten from the imports
# by `python -m tests.build_file` and held by tests/build_file_test.py.

load("@pypi//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", {kinds})

package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files(["LICENSE"])

# for the tests that read the tree itself
filegroup(
    name = "tree",
    srcs = glob(
        ["**"],
        exclude = [
            ".venv/**",
            "runs/**",
        ],
    ),
)
"""
# import name -> distribution, where they differ by more than a dash
DISTRIBUTIONS = {"absl": "absl-py", "PIL": "pillow", "sklearn": "scikit-learn"}
DATA = ("templates/*.html", "py.typed", "peers/*.safetensors")
RUNNER = "tests/run_pytest.py"


def distribution(module: str) -> str | None:
    """Returns what provides a foreign module, None for Python's own."""
    if module in sys.stdlib_module_names:
        return None
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def render(root: Path = imports.REPOSITORY) -> str:
    """Returns the text of BUILD for the tree below `root`."""
    return _Tree(root).render()


class _Tree:
    """The modules below a folder and the rules that build them."""

    def __init__(self, root: Path):
        self.root = root
        self.known = imports.modules(root)
        self.uses = {
            name: imports.imported(path, self.known)
            for name, path in self.known.items()
        }

    def render(self) -> str:
        folders: dict[str, list[str]] = {}
        tests = []
        for module, path in self.known.items():
            if path.name.endswith("_test.py"):
                tests.append(module)
            else:
                folders.setdefault(self.folder(module), []).append(module)
        rules = [self.facade()]
        rules += [self.library(*item) for item in sorted(folders.items())]
        rules += self.binaries()
        rules += [self.test(module) for module in sorted(tests)]
        kinds = _strings({rule.partition("(")[0] for rule in rules})
        header = HEADER.replace("{kinds}", ", ".join(kinds))
        return "\n".join([header, *rules])

    def folder(self, module: str) -> str:
        """Returns the folder of a module's library: all of a component."""
        folder = self.known[module].parent.relative_to(self.root)
        depth = 2 if folder.parts[0] == "qgen_tf" else None
        return "/".join(folder.parts[:depth])

    def source(self, module: str) -> str:
        return self.known[module].relative_to(self.root).as_posix()

    def label(self, module: str) -> str:
        """Returns the library that holds a module.

        `qgen_tf` itself stands for the public names of its `__init__.py`. The
        file is in the base, which every part of the package needs.
        """
        if module == "qgen_tf":
            return ":qgen_tf"
        folder = self.folder(module)
        if folder == "qgen_tf":
            return ":qgen_tf_base"
        return ":" + folder.replace("/", "_")

    def deps(
        self,
        modules: list[str],
        label: str = "",
        extra: Iterable[str] = (),
    ) -> list[str]:
        """Returns what the modules of target `label` import, in Starlark."""
        names = set().union(*(self.uses[module] for module in modules))
        own = {self.label(name) for name in names if name in self.known}
        foreign = {distribution(name) for name in names - self.known.keys()}
        return [
            *_strings({*own, *extra} - {label}),
            *(f'requirement("{name}")' for name in sorted(foreign - {None})),
        ]

    def facade(self) -> str:
        return _rule(
            "py_library",
            name=_string("qgen_tf"),
            deps=self.deps(["qgen_tf"], label=":qgen_tf"),
        )

    def library(self, folder: str, modules: list[str]) -> str:
        inside = [module for module in modules if module != "qgen_tf"]
        label = self.label(inside[-1])
        data = (
            path.relative_to(self.root).as_posix()
            for pattern in DATA
            for path in (self.root / folder).glob(pattern)
        )
        return _rule(
            "py_library",
            name=_string(label[1:]),
            testonly="True" if folder.startswith("tests") else "",
            srcs=_strings(map(self.source, modules)),
            data=_strings(data),
            deps=self.deps(inside, label),
        )

    def binaries(self) -> list[str]:
        """Returns the console scripts that can also be run as files."""
        parser = configparser.ConfigParser()
        parser.read(self.root / "setup.cfg")
        scripts = parser["options.entry_points"]["console_scripts"]
        rules = []
        for line in sorted(scripts.strip().splitlines()):
            name, module = line.split(":")[0].split(" = ")
            path = self.known.get(module)
            if path and "__main__" in path.read_text():
                rules.append(
                    _rule(
                        "py_binary",
                        name=_string(name),
                        srcs=[_string(self.source(module))],
                        main=_string(self.source(module)),
                        deps=_strings([":configs", self.label(module)]),
                    )
                )
        return rules

    def test(self, module: str) -> str:
        slow = "pytest.mark.slow" in self.known[module].read_text()
        reads_tree = self.uses[module] & {"tests.imports", "tests.build_file"}
        return _rule(
            "py_test",
            name=_string(module.removeprefix("tests.").replace(".", "_")),
            size=_string("large" if slow else "medium"),
            srcs=_strings([RUNNER, self.source(module)]),
            args=[_string(self.source(module))],
            data=[_string(":tree")] if reads_tree else [],
            main=_string(RUNNER),
            deps=self.deps([module], extra=[":tests"]),
        )


def _string(text: str) -> str:
    return f'"{text}"'


def _strings(texts: Iterable[str]) -> list[str]:
    return [_string(text) for text in sorted(texts)]


def _rule(kind: str, **attributes: str | list[str]) -> str:
    """Formats a rule; an empty attribute is left out."""
    lines = [f"{kind}("]
    for name, value in attributes.items():
        if isinstance(value, list) and len(value) > 1:
            lines.append(f"    {name} = [")
            lines += [f"        {item}," for item in value]
            lines.append("    ],")
        elif isinstance(value, list) and value:
            lines.append(f"    {name} = [{value[0]}],")
        elif value:
            lines.append(f"    {name} = {value},")
    return "\n".join([*lines, ")\n"])


if __name__ == "__main__":
    (imports.REPOSITORY / "BUILD").write_text(render())
