"""The modules of this project and what each of them imports."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("qgen_tf", "export", "configs", "tests", "benchmarks", "examples")


def modules(root: Path = REPOSITORY) -> dict[str, Path]:
    """Returns dotted name -> file, for every Python file of the project."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found[".".join(parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Returns the modules that a file imports, wherever in it.

    Imports inside functions and under `TYPE_CHECKING` count. A name of this
    project is resolved to the module of `known` that holds it; of any other,
    the top-level package is returned.

    Args:
      path: a Python file.
      known: the result of `modules`.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}:{node.lineno}: relative import; write the "
                    "absolute one"
                )
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_resolve(name, known) for name in names}


def _resolve(name: str, known: dict[str, Path]) -> str:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in known:
            return ".".join(parts[:length])
    return parts[0]
