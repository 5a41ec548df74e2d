"""A dry step at the start of a run, with the losses that begin later: does it fit into memory?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor

from maskfree.data.loader import Loaded
from maskfree.method import Method


def rehearse_first(
    fabric: Fabric, method: Method, optimizer: torch.optim.Optimizer, batches: Iterator[Loaded]
) -> Iterator[Loaded]:
    """Take a dry step with the first batch, then pass on all batches.

    Args:
        fabric: The launched processes.
        method: Method in training.
        optimizer: Its optimizer.
        batches: Batches of this process.

    Yields:
        The batches, unchanged.

    Raises:
        ValueError: The dry step does not fit into the memory of the accelerator.
    """
    for number, loaded in enumerate(batches):
        if not number:
            _rehearse(fabric, method, optimizer, loaded)
        yield loaded


def _rehearse(
    fabric: Fabric, method: Method, optimizer: torch.optim.Optimizer, loaded: Loaded
) -> None:
    """Take a step forward and backward that changes nothing."""
    # Running statistics move in a forward pass.
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}

    try:
        with fabric.autocast():
            losses = method.rehearse(loaded.batch.to(fabric.device))
        if losses is None:
            return
        reserve = _moments_to_come(optimizer)
        losses.total.backward()
        del reserve
    except torch.OutOfMemoryError as error:
        raise ValueError(
            "the device has too little memory for the losses that begin later in the training: "
            "try train.checkpointing, a smaller train.batch_size or a larger train.accumulate "
            f"({str(error).splitlines()[0]})"
        ) from error
    finally:
        method.zero_grad(set_to_none=True)
        for name, buffer in method.named_buffers():
            buffer.copy_(buffers[name])


def _moments_to_come(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Memory of the two moments that AdamW makes for each weight in its first step."""
    if optimizer.state:
        return []

    moments = []
    for group in optimizer.param_groups:
        for weight in group["params"]:
            moments += [torch.empty_like(weight), torch.empty_like(weight)]
    return moments
