"""Reading ahead and writing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from maskfree.label import threads
from maskfree.label.threads import ahead, behind


def one(item: object) -> int:
    return 1


def test_items_come_in_order_and_are_made_ahead():
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with ahead(numbers(), one, 4) as items:
        assert next(items) == 0
        end = time.monotonic() + 20
        while len(made) < 6 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        # One was taken, four wait, and one is in the maker's hand.
        assert len(made) == 6
        assert list(items) == list(range(1, 20))


def test_an_item_larger_than_the_bound_passes():
    with ahead(iter([100, 5, 200]), int, 10) as items:
        assert list(items) == [100, 5, 200]


def test_an_error_of_making_comes_after_what_was_made():
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(failing(), one, 10) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_leaving_early_ends_the_maker():
    before = threading.active_count()
    with ahead(iter(range(10**9)), one, 3) as items:
        assert next(items) == 0
    assert threading.active_count() == before


def test_everything_handed_over_is_done_whatever_ends_the_block():
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), behind(work, one, 100) as hand_over:
        for number in range(5):
            hand_over(number)
        raise KeyboardInterrupt
    assert done == list(range(5))


def test_slow_work_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "_PATIENCE_S", 0.01)
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.2)
        done.append(item)

    with behind(work, one, 10) as hand_over:
        hand_over(1)
        hand_over(2)
    assert done == [1, 2]


@pytest.fixture
def interrupted():
    """SIGINT raises KeyboardInterrupt, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupted")
def test_a_signal_while_the_work_is_waited_for_loses_nothing():
    done: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), behind(work, one, 10) as hand_over:
        for number in range(3):
            hand_over(number)
    assert done == [0, 1, 2]


def test_an_error_of_the_work_is_raised_where_items_are_handed_over():
    def work(item: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), behind(work, one, 1) as hand_over:
        for number in range(100):
            hand_over(number)
            time.sleep(0.001)


def test_an_error_of_the_last_item_is_raised_at_the_end():
    def work(item: int) -> None:
        time.sleep(0.02)
        raise OSError("full")

    with pytest.raises(OSError, match="full"), behind(work, one, 10) as hand_over:
        hand_over(1)


def test_at_most_the_bound_waits_for_the_work():
    go, most = threading.Event(), []

    def work(item: int) -> None:
        go.wait(20)

    with behind(work, one, 3) as hand_over:

        def give() -> None:
            for number in range(8):
                hand_over(number)
                most.append(number)

        giver = threading.Thread(target=give)
        giver.start()
        time.sleep(0.2)
        # Three wait, and one is being worked on.
        assert len(most) == 4
        go.set()
        giver.join()
    assert len(most) == 8
