"""Iteration in a thread: order, errors, how far it runs ahead, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from maskfree.ahead import ahead


def threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("number", [1, 3])
def test_items_come_in_order_from_another_thread(number: int):
    before = threads()
    found = list(ahead(((place, threading.get_ident()) for place in range(50)), number))
    assert [place for place, _ in found] == list(range(50))
    assert {thread for _, thread in found} & {threading.get_ident()} == set()
    assert threads() == before


def test_it_runs_ahead_by_the_number_and_no_further():
    made: list[int] = []

    def items() -> Iterator[int]:
        for place in range(100):
            made.append(place)
            yield place

    with closing(ahead(items(), 2)) as results:
        for place in range(5):
            assert next(results) == place
            deadline = time.monotonic() + 5
            while len(made) < place + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(made) == place + 3


def test_an_error_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second item")

    results = ahead(items())
    assert next(results) == 1
    with pytest.raises(ValueError, match="no second item"):
        next(results)
    assert list(results) == []


def test_work_and_use_overlap():
    def items() -> Iterator[int]:
        for place in range(5):
            time.sleep(0.1)
            yield place

    start = time.monotonic()
    for _ in ahead(items()):
        time.sleep(0.1)
    assert time.monotonic() - start < 0.9  # one after the other takes 1.0


def test_closing_interrupts_the_work_and_closes_the_items():
    before, closed = threads(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            for _ in range(2000):
                time.sleep(0.01)
            yield 2
        finally:
            closed.set()

    results = ahead(ahead(items()))
    assert next(results) == 1
    start = time.monotonic()
    results.close()
    assert closed.is_set()
    assert time.monotonic() - start < 5
    assert threads() == before
