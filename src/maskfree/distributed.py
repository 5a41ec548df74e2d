"""The processes of a run: torchrun's or SLURM's if they are there, else as many as were asked for, through Fabric."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed import ReduceOp, all_reduce, destroy_process_group, is_initialized, new_group

from maskfree import run_dir
from maskfree.devices import resolve


def launch(
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int = 1,
    precision: Any = "32-true",
    unused_parameters: bool = False,
) -> Fabric:
    """Start or join the processes; DEVICES are per machine, and torchrun's own numbers count.

    Raises:
        ValueError: the accelerator is not there, or there are fewer GPUs than processes.
    """
    accelerator = resolve(accelerator).partition(":")[0]
    if "LOCAL_WORLD_SIZE" in os.environ:
        devices = os.environ["LOCAL_WORLD_SIZE"]
        num_nodes = int(os.environ["WORLD_SIZE"]) // int(devices)

    most = torch.cuda.device_count() if accelerator == "cuda" else 1
    number = most if devices == "auto" else int(devices)
    if accelerator == "cuda" and number > most:
        raise ValueError(
            f"{number} processes on a machine need as many GPUs, there are {most}: or choose the CPU"
        )

    several = (
        DDPStrategy(find_unused_parameters=unused_parameters) if number * num_nodes > 1 else "auto"
    )
    fabric = Fabric(
        accelerator=accelerator,
        devices=number,
        num_nodes=num_nodes,
        strategy=several,
        precision=precision,
    )
    fabric.launch()
    return fabric


@atexit.register
def _part() -> None:
    """Leave the other processes before Python ends: torch aborts where its threads outlive it."""
    if is_initialized():
        destroy_process_group()


@contextmanager
def only_run(fabric: Fabric, out: Path) -> Iterator[None]:
    """Hold the folder OUT for the processes of one run; every process must enter.

    Raises:
        OSError: Another run holds it, or it cannot be written; in all processes alike.
    """
    with ExitStack() as stack:
        refusal = ""
        if fabric.is_global_zero:
            try:
                stack.enter_context(run_dir.held(out))
            except OSError as error:
                refusal = str(error)
        if refusal := fabric.broadcast(refusal):
            raise OSError(refusal)
        yield


def any_process(fabric: Fabric) -> Callable[[bool], bool]:
    """Return a function that tells whether it is given True in any process; each must call it.

    The processes meet on the CPU, which waits for no accelerator: on one machine it takes less than
    a millisecond.
    """
    if fabric.world_size == 1:
        return lambda here: here
    group = new_group(backend="gloo")

    def anywhere(here: bool) -> bool:
        flag = torch.tensor(int(here))
        all_reduce(flag, ReduceOp.MAX, group)
        return bool(flag)

    return anywhere
