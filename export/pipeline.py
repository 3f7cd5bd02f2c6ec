"""Works through the parts of batches in several threads."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

_MOST_BEGUN = 3  # batches at once, so that memory stays flat


class Pipeline:
    """Calls a function for each part of each batch, several at once.

    Batches come back whole and in their order. The thread that asks for them
    works, too, since to wake one that has slept takes time; while it does
    something else, the others go on with the next batches.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        batches: Iterable[Iterable[Any]],
    ):
        """Starts nothing yet.

        Args:
          function: of a part.
          batches: the parts of each; whichever thread is free reads the next.
        """
        self._function = function
        self._source = iter(batches)
        self._is_read = False
        self._begun: collections.deque[_Batch] = collections.deque()
        self._changed = threading.Condition()

    def results(
        self, pool: futures.Executor, num_others: int
    ) -> Iterator[list[Any]]:
        """Yields what the function returned for the parts of each batch.

        Args:
          pool: gives threads, beside that which asks.
          num_others: how many.

        Raises:
          Exception: that of the first part that failed, or of reading a batch,
            after all batches before it.
        """
        others = [pool.submit(self._work) for _ in range(num_others)]
        try:
            while (batch := self._next_done()) is not None:
                if batch.failures:
                    raise batch.failures[min(batch.failures)]
                yield [batch.results[index] for index in sorted(batch.results)]
        finally:
            self._stop()
            for other in others:
                if not other.cancel():  # it is at work
                    other.result()

    def _next_done(self) -> _Batch | None:
        """Works until the next batch is done; None if there is no other."""
        while True:
            with self._changed:
                if self._begun and self._begun[0].is_done:
                    self._changed.notify_all()
                    return self._begun.popleft()
                job = self._take()
                if job is None:
                    if not self._begun:
                        return None
                    if not self._begun[0].is_done:
                        self._changed.wait()
                    continue
            self._do(*job)

    def _work(self) -> None:
        """Works until all is taken."""
        while True:
            with self._changed:
                while (job := self._take()) is None:
                    if self._is_read:
                        return
                    self._changed.wait()
            self._do(*job)

    def _take(self) -> tuple[_Batch, int, Any] | None:
        """Returns a part that nobody has; None if there is none for now."""
        if not (self._begun and self._begun[-1].parts):
            self._read()
        if not (self._begun and self._begun[-1].parts):
            return None
        newest = self._begun[-1]
        newest.num_running += 1
        return newest, *newest.parts.popleft()

    def _read(self) -> None:
        """Begins another batch, if there is one and not too many are begun."""
        if self._is_read or len(self._begun) >= _MOST_BEGUN:
            return
        batch = _Batch()
        try:
            batch.parts.extend(enumerate(next(self._source)))
        except StopIteration:
            self._stop()
            return
        except Exception as error:
            batch.failures[0] = error  # raised when it is this batch's turn
            self._stop()
        self._begun.append(batch)

    def _do(self, batch: _Batch, index: int, part: Any) -> None:
        try:
            batch.results[index] = self._function(part)
        except Exception as error:
            batch.failures[index] = error
            self._stop()
        finally:
            with self._changed:
                batch.num_running -= 1
                if batch.is_done:
                    self._changed.notify_all()

    def _stop(self) -> None:
        """Lets nobody take or read any more."""
        with self._changed:
            self._is_read = True
            for batch in self._begun:
                batch.parts.clear()
            self._changed.notify_all()


@dataclasses.dataclass
class _Batch:
    """A batch that is begun.

    Attributes:
      parts: with their indices, those that nobody has taken.
      num_running: parts that a thread is at.
      results: of the parts that are done, by index.
      failures: of those that failed.
    """

    parts: collections.deque[tuple[int, Any]] = dataclasses.field(
        default_factory=collections.deque
    )
    num_running: int = 0
    results: dict[int, Any] = dataclasses.field(default_factory=dict)
    failures: dict[int, Exception] = dataclasses.field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether no part of it is left or running."""
        return not self.parts and not self.num_running
