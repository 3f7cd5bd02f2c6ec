"""Runs jobs in processes of a Ray cluster, each after the one it needs."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from qgen_tf import errors

# a process that dies (a lost machine, no memory left) is started again
_RETRIES = 2
# Ray's smallest; jobs hand over nothing but their arguments
_STORE_BYTES = 80 * 2**20
_ANSWER_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where jobs run, and on how much of it each does.

    Attributes:
      address: of a Ray cluster, such as "auto"; None starts one that has the
        cores and GPUs of this machine, and ends with this process.
      cpus: cores of a job.
      gpus: GPUs of a job; 0.25 puts four jobs on each.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self):
        if self.cpus < 1 or not 0.0 <= self.gpus < math.inf:
            raise errors.ConfigError(
                f"a trial cannot have {self.cpus} CPUs and {self.gpus} GPUs: "
                "give it at least one CPU, and a number or a fraction of GPUs."
            )


@dataclasses.dataclass(frozen=True)
class Job:
    """Something to do.

    Attributes:
      key: its name.
      argument: of the function that does it.
      after: key of the job that has to succeed first, if it is among those
        to do; None for none.
    """

    key: str
    argument: Any
    after: str | None = None


@dataclasses.dataclass
class State:
    """How far jobs are.

    Attributes:
      done: keys of those that succeeded.
      failed: key to the reason.
      crashed: keys of those that could not say why.
      running: how many there are processes for.
    """

    done: set[str] = dataclasses.field(default_factory=set)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    crashed: set[str] = dataclasses.field(default_factory=set)
    running: int = 0


@contextlib.contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Joins a Ray cluster, or starts one on this machine.

    Raises:
      ConfigError: there is no cluster at the address, or none of its machines
        has what a job needs.
    """
    with contextlib.nullcontext() if resources.address else _temporary():
        _join(resources)
        try:
            if not resources.address and not _slots(resources):
                raise errors.ConfigError(
                    f"a trial is to have {resources.cpus} CPUs and "
                    f"{resources.gpus:g} GPUs, but this machine has "
                    f"{_total('CPU'):g} and {_total('GPU'):g}."
                )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _temporary() -> Iterator[None]:
    """Gives the processes that start inside a folder for temporary files.

    It ends with them: TensorFlow leaves some where a process is stopped. Ray
    keeps its own where it always does.
    """
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")}
    os.environ.setdefault("RAY_TMPDIR", tempfile.gettempdir())
    with tempfile.TemporaryDirectory(
        prefix="qgen-", ignore_cleanup_errors=True
    ) as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _join(resources: Resources) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what Ray will do one day; until then, it says so in every process
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local: dict[str, Any] = {
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        _require_answer(resources.address)
        ray.init(
            address=resources.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if resources.address else local),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise errors.ConfigError(
            f"no Ray cluster can be joined at {resources.address!r}: {error}; "
            "start one by `ray start --head`, set RAY_AUTH_MODE=token if it "
            "asks for a token, or leave --ray_address away."
        ) from error


def _require_answer(address: str | None) -> None:
    """Raises an OSError if nobody listens: Ray itself waits for very long."""
    host, separator, port = (address or "").rpartition(":")
    if separator and "/" not in host:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()


def run(
    jobs: Sequence[Job],
    work: Callable[[Any], str | None],
    resources: Resources,
    *,
    fresh_process: bool = True,
    on_change: Callable[[State], None] = lambda state: None,
) -> State:
    """Runs jobs until each is done or failed; needs a `cluster`.

    Those that wait for another come next when it is done, before those that
    wait for none: what belongs together is finished early.

    Args:
      jobs: a job comes behind the one that it needs.
      work: of an importable module; from the argument of a job to the reason
        why it failed, or None.
      resources: of each job.
      fresh_process: whether each job has a process of its own.
      on_change: called with the state where it has changed.

    Returns:
      The last state.
    """
    task = ray.remote(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_retries=_RETRIES,
        max_calls=1 if fresh_process else 0,
    )(work)
    keys = {job.key for job in jobs}
    ready: collections.deque[Job] = collections.deque()
    waiting: dict[str | None, list[Job]] = collections.defaultdict(list)
    for job in jobs:
        (waiting[job.after] if job.after in keys else ready).append(job)
    submitted: dict[ray.ObjectRef, Job] = {}
    state = State()
    while ready or submitted:
        slots = _slots(resources)
        # more than there is room for: clusters that can grow then do
        while ready and len(submitted) <= 2 * slots:
            job = ready.popleft()
            submitted[task.remote(job.argument)] = job
        state.running = min(len(submitted), slots)
        on_change(state)
        finished, _ = ray.wait([*submitted], timeout=5.0)
        for reference in finished:
            job = submitted.pop(reference)
            try:
                reason = ray.get(reference)
            except ray.exceptions.RayError as error:
                reason = _crash(error)
                state.crashed.add(job.key)
            if reason is None:
                state.done.add(job.key)
                ready.extendleft(reversed(waiting.pop(job.key, [])))
            else:
                _fail(state, waiting, job, reason)
    state.running = 0
    on_change(state)
    return state


def _crash(error: ray.exceptions.RayError) -> str:
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    first = str(error).strip().splitlines()[0]
    return f"its process ended, {_RETRIES + 1} times: {first}"


def _fail(
    state: State,
    waiting: dict[str | None, list[Job]],
    job: Job,
    reason: str,
) -> None:
    state.failed[job.key] = reason
    for child in waiting.pop(job.key, []):
        _fail(state, waiting, child, f"{job.key}, which it needs, failed")


def _slots(resources: Resources) -> int:
    """Returns how many jobs the cluster has room for."""
    slots = _total("CPU") // resources.cpus
    if resources.gpus:
        slots = min(slots, _total("GPU") / resources.gpus)
    return int(slots)


def _total(kind: str) -> float:
    return ray.cluster_resources().get(kind, 0.0)
