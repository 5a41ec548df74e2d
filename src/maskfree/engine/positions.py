"""Data positions of all streams as tensors of a training state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from maskfree.data.loader import Position
from maskfree.data.order import Share


def tensors_of(positions: Sequence[Position], device: torch.device) -> tuple[Tensor, Tensor]:
    """Write the positions of this process's streams as tensors.

    Args:
        positions: Position of each stream.
        device: Device of the tensors.

    Returns:
        Pass, samples taken and samples left out of each stream, and the samples left out by reason.
    """
    places = torch.tensor([[p.epoch, p.taken, p.broken] for p in positions], device=device)
    reasons = torch.tensor([position.by_reason for position in positions], device=device)
    return places, reasons


def positions_from(
    tensors: Mapping[str, Tensor], process: Share, num_streams: int
) -> list[Position]:
    """Read the positions of this process's streams from a state.

    The order of the data depends on the number of streams over all processes and not on how the
    processes share them, so a run may go on with other processes that have as many streams.

    Args:
        tensors: Tensors of the state, with a row for each process and stream.
        process: Number of this process, and how many there are.
        num_streams: Streams of this process.

    Returns:
        Position of each of them.

    Raises:
        ValueError: The run had another number of streams.
    """
    saved = tensors["positions"]
    processes, workers, _ = saved.shape
    if processes * workers != process.count * num_streams:
        raise ValueError(
            f"the run read its data in {processes * workers} streams ({processes} processes x "
            f"{workers} data workers), not {process.count * num_streams} ({process.count} x "
            f"{num_streams}): choose --data.workers so that the product stays the same"
        )

    # Streams are numbered over all processes.
    own = slice(process.index * num_streams, (process.index + 1) * num_streams)
    positions = [Position(*place) for place in saved.flatten(0, 1)[own].tolist()]

    # States of older versions have no counts by reason.
    if "left_out" not in tensors:
        return positions
    reasons = tensors["left_out"].flatten(0, 1)[own].tolist()
    pairs = zip(positions, reasons, strict=True)
    return [replace(position, by_reason=tuple(row)) for position, row in pairs]
