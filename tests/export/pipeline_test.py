"""Parts of batches in several threads: order, overlap, failures, the end."""

import contextlib
import threading
import time
from concurrent import futures

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.pipeline import Pipeline


@pytest.fixture(scope="module")
def pool():
    with futures.ThreadPoolExecutor(4) as threads:
        yield threads


def _square(number):
    if number % 3 == 0:
        time.sleep(0.001)  # parts end in another order than they begin
    return number**2


@settings(deadline=None, max_examples=30)
@given(
    batches=st.lists(st.lists(st.integers(0, 99), min_size=1), max_size=9),
    num_others=st.integers(0, 4),
)
def test_batches_come_back_whole_and_in_order(pool, batches, num_others):
    pipeline = Pipeline(_square, batches)
    assert list(pipeline.results(pool, num_others)) == [
        [number**2 for number in batch] for batch in batches
    ]


def test_others_go_on_while_the_caller_does_something_else(pool):
    begun, enough = [], threading.Event()

    def function(part):
        begun.append(part)
        if part == "c":
            enough.set()
        return part

    def batches():
        for name in "abcdefgh":
            read.append(name)
            yield [name]

    read = []
    results = Pipeline(function, batches()).results(pool, 2)
    assert next(results) == ["a"]
    assert enough.wait(30.0)  # the caller asked for one batch only
    time.sleep(0.05)
    assert read == list("abcd")  # and three are held beside it
    assert list(results) == [[name] for name in "bcdefgh"]
    assert sorted(begun) == list("abcdefgh")


@pytest.mark.parametrize("num_others", [0, 3])
def test_the_first_part_that_fails_counts(pool, num_others):
    def function(part):
        if part == 4:
            time.sleep(0.02)  # a later one fails before
        if part in (4, 5, 7):
            raise ValueError(f"part {part}")
        return part

    done = []
    pipeline = Pipeline(function, [[0, 1], [2, 3], [4, 5, 6], [7, 8], [9]])
    with pytest.raises(ValueError, match="part 4"):
        done.extend(pipeline.results(pool, num_others))
    assert done == [[0, 1], [2, 3]]


@pytest.mark.parametrize("num_others", [0, 3])
def test_a_batch_that_cannot_be_read(pool, num_others):
    def batches():
        yield [1, 2]
        yield [3]
        raise OSError("the disk is gone")

    done = []
    with pytest.raises(OSError, match="the disk is gone"):
        done.extend(Pipeline(_square, batches()).results(pool, num_others))
    assert done == [[1, 4], [9]]


def test_the_threads_are_free_when_the_caller_stops_early(pool):
    count = 0

    def batches():
        while True:
            yield [1, 2, 3]

    def function(part):
        nonlocal count
        count += 1
        return part

    results = Pipeline(function, batches()).results(pool, 4)
    with contextlib.closing(results):
        assert next(results) == [1, 2, 3]
    before = count
    barrier = threading.Barrier(5)
    waiting = [pool.submit(barrier.wait, 30.0) for _ in range(4)]
    barrier.wait(30.0)  # all four are there
    futures.wait(waiting)
    assert count == before
