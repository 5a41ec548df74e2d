"""Launch of distributed processes through Fabric.

Processes are those of torchrun or SLURM, or as many as asked for.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed import ReduceOp, all_reduce, destroy_process_group, is_initialized, new_group

from maskfree import run_dir
from maskfree.devices import resolve

Made = TypeVar("Made")


def launch(accelerator: str = "auto", devices: str = "auto", precision: Any = "32-true") -> Fabric:
    """Launch the processes of a run, or join those that torchrun started.

    Args:
        accelerator: Device name as `devices.resolve` takes it; its number is ignored.
        devices: Processes per machine, or "auto" for all GPUs; under torchrun its own number
            counts.
        precision: Precision of Fabric, such as "32-true", "bf16-mixed" or "16-mixed".

    Returns:
        Fabric with its processes launched.

    Raises:
        ValueError: The accelerator is not available, or there are fewer GPUs than processes.
    """
    accelerator = resolve(accelerator).partition(":")[0]
    devices, num_nodes = processes_of_launcher(devices)

    # DDP on GPUs takes one GPU per process.
    max_processes = 1
    if accelerator == "cuda":
        max_processes = torch.cuda.device_count()

    num_processes = max_processes
    if devices != "auto":
        num_processes = int(devices)
    if accelerator == "cuda" and num_processes > max_processes:
        raise ValueError(
            f"{num_processes} processes on a machine need as many GPUs, "
            f"there are {max_processes}: or choose the CPU"
        )

    # A single process needs no gradient synchronization.
    strategy: str | DDPStrategy = "auto"
    if num_processes * num_nodes > 1:
        strategy = DDPStrategy()

    # Fabric has fp16 on GPUs only; its plugin works on the CPU too.
    plugins = None
    if precision == "16-mixed":
        plugins, precision = MixedPrecision(precision, device=accelerator), None

    fabric = Fabric(
        accelerator=accelerator,
        devices=num_processes,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        plugins=plugins,
    )
    fabric.launch()

    return fabric


def processes_of_launcher(devices: str) -> tuple[str, int]:
    """Take the number of processes from torchrun or SLURM, which start them.

    Args:
        devices: Processes per machine, where no launcher says it, or "auto".

    Returns:
        Processes per machine, and number of machines.
    """
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = os.environ["LOCAL_WORLD_SIZE"]
        return here, int(os.environ["WORLD_SIZE"]) // int(here)

    # In an interactive SLURM job the variable is set, but the processes are not SLURM's.
    if "SLURM_NNODES" in os.environ and SLURMEnvironment.detect():
        return devices, int(os.environ["SLURM_NNODES"])

    return devices, 1


@atexit.register
def _part() -> None:
    """Leave the process group before Python exits: torch aborts where its threads outlive it."""
    if is_initialized():
        destroy_process_group()


@contextmanager
def only_run(fabric: Fabric, out: Path) -> Iterator[None]:
    """Lock the output folder for the processes of one run; every process must enter.

    Args:
        fabric: The launched processes.
        out: Folder of the run.

    Yields:
        Nothing, while the folder is locked.

    Raises:
        OSError: Another run holds the folder, or it cannot be written; raised in all processes
            alike.
    """
    with ExitStack() as stack:
        # The first process locks for all; an error must be raised in every process, or
        # the others would wait.
        refusal = ""
        if fabric.is_global_zero:
            try:
                stack.enter_context(run_dir.held(out))
            except OSError as error:
                refusal = str(error)
        if refusal := fabric.broadcast(refusal):
            raise OSError(refusal)
        yield


def after_first(fabric: Fabric, make: Callable[[], Made]) -> Made:
    """Call a function in the first process, then in the others; every process must enter.

    Args:
        fabric: The launched processes.
        make: Function that the first process calls before the others.

    Returns:
        What the function returns in this process.

    Raises:
        ValueError: The function raised it in the first process; raised in all processes alike.
        OSError: Likewise.
    """
    if fabric.world_size == 1:
        return make()

    refusal: tuple[str, str] | None = None
    made: list[Made] = []
    if fabric.is_global_zero:
        try:
            made.append(make())
        except (ValueError, OSError) as error:
            refusal = ("value" if isinstance(error, ValueError) else "system", str(error))

    refusal = fabric.broadcast(refusal)
    if refusal is None:
        return made[0] if made else make()
    kind, message = refusal
    raise ValueError(message) if kind == "value" else OSError(message)


def any_process(fabric: Fabric) -> Callable[[bool], bool]:
    """Return a function that tells whether any process passes True; every process must call it.

    The processes communicate on the CPU, which waits for no accelerator: on one machine a call
    takes less than a millisecond.

    Args:
        fabric: The launched processes.

    Returns:
        Function from this process's flag to the logical or over all processes.
    """
    if fabric.world_size == 1:
        return lambda here: here

    # gloo communicates on the CPU.
    group = new_group(backend="gloo")

    def anywhere(here: bool) -> bool:
        """Tell whether any process passes True.

        Args:
            here: Flag of this process.

        Returns:
            The logical or over all processes.
        """
        flag = torch.tensor(int(here))
        all_reduce(flag, ReduceOp.MAX, group)
        return bool(flag)

    return anywhere
