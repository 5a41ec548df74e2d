"""The processes of a run: torchrun's or SLURM's if they are there, else as many as were asked for, through Fabric."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy


def launch(
    accelerator: str = "auto",
    devices: str = "auto",
    num_nodes: int = 1,
    precision: Any = "32-true",
    unused_parameters: bool = False,
) -> Fabric:
    """Start or join the processes; DEVICES are per machine, and torchrun's own numbers count."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        devices = os.environ["LOCAL_WORLD_SIZE"]
        num_nodes = int(os.environ["WORLD_SIZE"]) // int(devices)
    elif devices == "auto" and (accelerator == "cpu" or not torch.cuda.is_available()):
        devices = "1"
    number = torch.cuda.device_count() if devices == "auto" else int(devices)
    several = DDPStrategy(find_unused_parameters=unused_parameters) if number * num_nodes > 1 else "auto"
    fabric = Fabric(accelerator=accelerator, devices=number, num_nodes=num_nodes, strategy=several, precision=precision)
    fabric.launch()
    return fabric
