"""Progress of a stage, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import tqdm


@contextlib.contextmanager
def steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Gives a function that names the step that begins, on a progress bar."""
    with tqdm.tqdm(total=total, desc=title, unit="step") as bar:
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            bar.update(min(begun, 1))
            bar.set_postfix_str(name)
            begun += 1

        yield step
        bar.update()
