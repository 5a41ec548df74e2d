"""Training batches of one process: drawn shapes, the data stream and its workers."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.loader import Loaded, NoSamples, Stream, build_loader
from maskfree.data.order import Share
from maskfree.data.sample import Transform
from maskfree.distributed import after_first
from maskfree.engine.config import TrainConfig
from maskfree.signals import held_back
from maskfree.text.entities import EntitySet


def drawn_shapes(fabric: Fabric, data: DataConfig, folder: Path) -> DataConfig:
    """Draw the shapes of a trial run once; collective over processes.

    Args:
        fabric: The launched processes.
        data: Settings that ask for shapes.
        folder: Folder to draw them in.

    Returns:
        Settings that read them as shards.
    """
    finder, index = None, ""
    if data.index:
        finder, index = EntitySet.read("shapes"), str(folder / shapes.INDEX)

    if fabric.is_global_zero:
        shapes.write(folder, data.shapes, finder=finder)
    fabric.barrier()
    return replace(data, shapes=0, shards=(str(folder),), index=index)


def stream_of(
    fabric: Fabric, config: TrainConfig, data: DataConfig, transform: Transform
) -> Stream:
    """Open the data stream of this process.

    Args:
        fabric: The launched processes.
        config: Settings of the training.
        data: Where the data are and how they are read.
        transform: Turns a sample into training inputs, and inputs into a batch.

    Returns:
        Batches of this process.

    Raises:
        ValueError: The batch does not divide into equal parts, or the data cannot be used.
        OSError: The data are missing.
    """
    world = fabric.world_size

    # Every process and part gets the same number of photos.
    if config.batch_size % (world * config.accumulate):
        raise ValueError(
            f"train.batch_size {config.batch_size} does not divide into {world} processes "
            f"x {config.accumulate} accumulated parts"
        )

    batch_size = config.batch_size // (world * config.accumulate)
    process = Share(fabric.global_rank, world)
    # Only the first process checks the content of shards, and its error must reach all.
    return after_first(fabric, lambda: Stream(data, transform, batch_size, config.seed, process))


def read_batches(
    stream: Stream, workers: int, pin_memory: bool, device: torch.device
) -> Generator[Loaded]:
    """Load batches in data workers that live until the generator is closed.

    Args:
        stream: Data stream of this process.
        workers: Number of worker processes; 0 loads in this process.
        pin_memory: Whether batches for a GPU come in page-locked memory.
        device: Device that the batches are for.

    Yields:
        Batches with their data position.

    Raises:
        NoSamples: The data has no usable sample.
    """
    with warnings.catch_warnings(), held_back():
        # Python 3.12 warns of every fork beside threads. The workers use none of the parent's.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = iter(build_loader(stream, workers, pin_memory and device.type == "cuda"))

    for item in loaded:
        # Workers hand an error over as an item.
        if isinstance(item, NoSamples):
            raise item
        yield item


@contextmanager
def one_line_for_lost_workers() -> Iterator[None]:
    """Turn PyTorch's error for a killed data worker into a one-line ChildProcessError.

    PyTorch raises it from a signal handler, so it can come from any line.

    Yields:
        Nothing, while batches are read.

    Raises:
        ChildProcessError: A worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ChildProcessError(f"a data worker ended (is memory short?): {error}") from error
