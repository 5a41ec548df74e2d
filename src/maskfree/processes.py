"""The processes of a run: torchrun's or SLURM's if they are there, else as many as were asked for, through Fabric."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

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
        raise ValueError(f"{number} processes on a machine need as many GPUs, there are {most}: or choose the CPU")

    several = DDPStrategy(find_unused_parameters=unused_parameters) if number * num_nodes > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=number, num_nodes=num_nodes, strategy=several, precision=precision)
    fabric.launch()
    return fabric
