"""Processes of their own, with memory and libraries of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent import futures
from typing import Any


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function of a module returns in a new process."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(function, *arguments).result()
