"""Processes that load data: how they start, and that they end with the training."""

from __future__ import annotations

import atexit
import copy
import multiprocessing
from multiprocessing.context import BaseContext

import torch

from maskfree.signals import start_worker


def start_data_worker(worker: int) -> None:
    """Give the worker one thread and let the training process handle stop signals.

    Args:
        worker: Number of the worker, which is not used.
    """
    torch.set_num_threads(1)
    start_worker()


class _Worker(multiprocessing.Process):
    """A process that ignores SIGTERM, so that ending it takes SIGKILL; it has no state to lose."""

    def terminate(self) -> None:
        """End the process by SIGKILL."""
        self.kill()


def worker_context() -> BaseContext:
    """Build the multiprocessing context of data workers.

    Returns:
        The default context, with workers that SIGTERM does not end.
    """
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    context.Process = _Worker  # pyright: ignore[reportAttributeAccessIssue]
    return context


@atexit.register
def _end_workers() -> None:
    """Kill workers that an error left behind, for which Python would wait at exit."""
    for child in multiprocessing.active_children():
        if isinstance(child, _Worker):
            child.kill()
