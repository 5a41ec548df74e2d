"""A `map` over several processes that reads little ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from maskfree.signals import worker_pool

# Items read ahead per process, so that none has to wait.
_AHEAD = 8


@contextmanager
def process_map(num_processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Start processes for a `map` whose results come in order.

    Args:
        num_processes: Number of processes; with one, the work is done in this process.

    Yields:
        A function of the work and its items, as `map`.
    """
    if num_processes <= 1:
        yield map
        return

    with worker_pool(num_processes) as pool:
        yield partial(_map_ahead, pool, num_processes * _AHEAD)


def _map_ahead(
    pool: Any, max_waiting: int, work: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Results in order with a bounded queue; Pool.imap would read all items at once."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.apply_async(work, (item,)))
        # Wait for the oldest result before reading on.
        if len(waiting) >= max_waiting:
            yield waiting.pop(0).get()
    for result in waiting:
        yield result.get()
