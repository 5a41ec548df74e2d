"""Endless, seeded streams of training batches that can be resumed exactly.

The position of a stream is a few integers, which a checkpoint stores.
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import itertools
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from maskfree.data.config import DataConfig
from maskfree.data.entities.index import EntityIndex
from maskfree.data.examples import REASONS, UNREADABLE_PHOTO, Example, counted, decode
from maskfree.data.photo_folders import find_photos, read_photos
from maskfree.data.photo_sources import file_stem
from maskfree.data.sample import Partner, Source, Transform
from maskfree.data.shards import find_shards, read_shards
from maskfree.signals import start_worker
from maskfree.types import Batch

log = logging.getLogger(__name__)
Read = Callable[[Sequence[str]], Iterator[Example]]


class NoSamples(ValueError):  # noqa: N818 - an answer to the user, not a defect
    """A whole pass over the data gave no usable sample."""


@dataclass(frozen=True)
class Position:
    """Position of a stream in the data.

    Attributes:
        epoch: Current pass over the data, from 0.
        taken: Samples consumed in this pass, including unreadable ones.
        broken: Unusable samples in all passes.
        by_reason: Unusable samples for each of `REASONS`, in that order. A state saved by an
            earlier version has only their sum.
    """

    epoch: int = 0
    taken: int = 0
    broken: int = 0
    by_reason: tuple[int, ...] = (0,) * len(REASONS)


@dataclass(frozen=True)
class Loaded:
    """A batch, the number of the stream it came from, and the stream's position after it."""

    batch: Batch
    stream: int
    position: Position


def seed_of(*parts: int | str) -> int:
    """Hash values to a seed that is the same on every machine and in every process.

    Args:
        *parts: Integers and strings that the seed depends on.

    Returns:
        A seed in [0, 2**63).
    """
    # The separator keeps ("a", "bc") and ("ab", "c") apart.
    text = "\x1f".join(map(str, parts))
    return (
        int.from_bytes(
            hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big"
        )
        >> 1
    )


@dataclass(frozen=True)
class Share:
    """The part of the data that one stream reads.

    Attributes:
        index: Number of the stream over all processes and workers, from 0.
        count: Number of streams over all processes and workers.
    """

    index: int
    count: int

    def examples(
        self, units: Sequence[str], read: Read, seed: int, epoch: int
    ) -> Iterator[Example]:
        """Read this stream's part of one pass.

        These are whole units, or every count-th sample if there are fewer units than streams.
        The parts of one pass are disjoint and complete, and move on by one stream with each pass.

        Args:
            units: Shards or photos of the whole data set.
            read: Reads the examples of some units.
            seed: Seed of the order of the units.
            epoch: The pass, from 0.

        Returns:
            The examples of this stream's part.
        """
        rng = np.random.default_rng(seed_of(seed, "units", epoch))
        shuffled_units = [units[int(i)] for i in rng.permutation(len(units))]

        # The offset changes with the pass, so that a stream reads other data in each.
        first = (self.index + epoch) % self.count
        if len(units) >= self.count:
            return read(shuffled_units[first :: self.count])
        return itertools.islice(read(shuffled_units), first, None, self.count)


def shuffled(examples: Iterator[Example], size: int, seed: int) -> Iterator[Example]:
    """Shuffle a stream of examples with a buffer.

    Args:
        examples: Examples to shuffle.
        size: Number of examples in the buffer.
        seed: Seed of the order.

    Yields:
        Every example once.
    """
    rng = np.random.default_rng(seed)
    buffer = list(itertools.islice(examples, size))

    # The buffer is full: each new example replaces a random one.
    for example in examples:
        slot = rng.integers(size)
        yield buffer[slot]
        buffer[slot] = example

    rng.shuffle(buffer)  # pyright: ignore[reportArgumentType] - a list is a mutable sequence
    yield from buffer


class Stream(IterableDataset[Loaded | NoSamples]):
    """Endless batches for one process, whose data workers split its part of the data.

    The order, the augmentations and the partners depend only on the seed, the pass and the sample's
    key.

    Raises:
        ValueError: The data cannot be used, or the index does not fit them.
        OSError: The data are missing.
    """

    def __init__(
        self, data: DataConfig, transform: Transform, batch_size: int, seed: int, process: Share
    ):
        """Find the data and open the index.

        Args:
            data: Where the data are and how they are read.
            transform: Turns a sample into training inputs, and inputs into a batch.
            batch_size: Samples per batch.
            seed: Seed of the order, the augmentations and the partners.
            process: Number of this training process, and how many there are.
        """
        self.units = find_shards(data.shards) if data.shards else find_photos(data.images)
        assert self.units, "the caller draws shapes first"
        self.read: Read = read_shards if data.shards else partial(read_photos, folders=data.images)

        if data.images and transform.reads_maps:
            _check_stems(self.units)

        self.index = (
            EntityIndex.open(Path(data.index).expanduser(), self.units) if data.index else None
        )
        # The entities of the index must be those of the method.
        if self.index is not None and transform.entities is not None:
            _check_entities(self.index.entities, transform.entities)

        self.data, self.transform, self.batch_size, self.seed = data, transform, batch_size, seed
        self.process = process
        self.num_streams = max(data.workers, 1)
        self.go_to([Position()] * self.num_streams, 0)

    def go_to(self, positions: Sequence[Position], batches_done: int) -> None:
        """Set where the stream starts.

        Args:
            positions: Position after the last batch of each data worker.
            batches_done: Batches that were already taken from all workers together.
        """
        assert len(positions) == self.num_streams
        self.positions, self.batches_done = tuple(positions), batches_done

    def __iter__(self) -> Iterator[Loaded | NoSamples]:
        """Iterate over batches without end.

        Yields:
            Batches. If the data hold no usable sample, the last item is a `NoSamples` for the
            caller to raise.
        """
        worker = get_worker_info()
        # Workers take turns, so after n batches it is the turn of stream n modulo their count.
        index = ((worker.id if worker else 0) + self.batches_done) % len(self.positions)
        samples = self._samples(index)

        try:
            while True:
                chunk = list(itertools.islice(samples, self.batch_size))
                yield Loaded(
                    self.transform.collate([sample for sample, _ in chunk]), index, chunk[-1][1]
                )
        except NoSamples as error:
            yield error

    def _samples(self, index: int) -> Iterator[tuple[object, Position]]:
        """Augment the usable samples of one stream, each with the position after it."""
        share = Share(
            self.process.index * len(self.positions) + index,
            self.process.count * len(self.positions),
        )

        # Go on from the stored position.
        start = self.positions[index]
        broken, by_reason = start.broken, list(start.by_reason)
        barren, seen = 0, 0
        partners = _Partners(
            self.index if self.transform.takes_partner else None, self.data.decode_px, self.seed
        )

        for epoch in itertools.count(start.epoch):
            # Only the first pass is resumed in its middle.
            skip = start.taken if epoch == start.epoch else 0

            mixed = shuffled(
                filter(self._is_wanted, share.examples(self.units, self.read, self.seed, epoch)),
                self.data.shuffle_buffer,
                seed_of(self.seed, "buffer", epoch, share.index),
            )

            # Samples skipped on resuming count as usable: the pass gave some before.
            usable = bool(skip)
            for taken, example in enumerate(itertools.islice(mixed, skip, None), start=skip + 1):
                seen += 1
                try:
                    photo = decode(example, self.data.decode_px)
                # Decoders raise many kinds of errors on broken bytes; training must go on.
                except Exception as error:
                    problem = (
                        example.problem or f"{UNREADABLE_PHOTO}: {' '.join(str(error).split())}"
                    )
                    log.warning("skipped sample %r of %s: %s", example.key, example.source, problem)
                    broken += 1
                    by_reason[REASONS.index(problem.partition(":")[0])] += 1
                    continue

                usable = True
                source = Source(
                    example.key, photo, example.captions, partners.draw(example.key, epoch)
                )

                # The seed does not depend on earlier samples, so that resuming changes nothing.
                yield (
                    self.transform.sample(source, seed_of(self.seed, epoch, example.key)),
                    Position(epoch, taken, broken, tuple(by_reason)),
                )

            barren = 0 if usable else barren + 1
            # Parts move on with each pass, so after this many passes all data were tried.
            if barren == share.count:
                named = ", ".join(self.units[:3]) + (", ..." if len(self.units) > 3 else "")
                known = f" and known to the index {self.data.index}" if self.index else ""
                reasons = counted(by_reason)
                raise NoSamples(
                    f"none of the {seen} samples read from {named}{known} can be used"
                    + (f": {reasons}" if reasons else "")
                )

    def _is_wanted(self, example: Example) -> bool:
        """Whether the index has the example; unreadable examples pass, so that they are counted."""
        return (
            self.index is None or bool(example.problem) or self.index.find(example.key) is not None
        )


class _Partners:
    """Draws partner photos; an unreadable partner is logged once per pass and left out."""

    def __init__(self, index: EntityIndex | None, decode_px: int, seed: int):
        self._index, self._decode_px, self._seed = index, decode_px, seed
        self._last_complaint = -1

    def draw(self, key: str, epoch: int) -> Partner | None:
        """Draw the partner of a photo.

        Args:
            key: The photo's key.
            epoch: The pass, from 0.

        Returns:
            The partner; None without an index, or where no other photo shares an entity.
        """
        row = self._index.find(key) if self._index else None
        if self._index is None or row is None:
            return None

        try:
            found = self._index.partner(
                row, np.random.default_rng(seed_of(self._seed, "partner", epoch, key))
            )
            return Partner(found[0], decode(found[1], self._decode_px)) if found else None
        # Only the partner is lost: the photo itself is still used.
        except Exception as error:
            # One warning per pass is enough.
            if epoch != self._last_complaint:
                log.warning("no partner for sample %r: %s", key, " ".join(str(error).split()))
            self._last_complaint = epoch
            return None


def _check_stems(photos: Sequence[str]) -> None:
    """Check that no two photos share a stem, which names the files made for them."""
    known: dict[str, str] = {}
    for photo in photos:
        stem = file_stem(photo).casefold()
        if stem in known:
            raise ValueError(
                f"{known[stem]} and {photo} have one name, {stem}: maps of photos are told apart by it"
            )
        known[stem] = photo


def _check_entities(named: Sequence[str], known: Sequence[str]) -> None:
    """Check that the index names only entities of the method's list."""
    if unknown := sorted(set(named).difference(known)):
        raise ValueError(
            f"the index has the entity {unknown[0]!r}, which is not in the method's list: "
            "name the index's entities.txt with --method.entities"
        )


def build_loader(stream: Stream, workers: int) -> DataLoader[Loaded | NoSamples]:
    """Build the loader of a stream.

    Args:
        stream: Batches of this process.
        workers: Data worker processes; 0 loads in this process.

    Returns:
        A loader that passes on the stream's items unchanged.
    """
    # The stream makes batches itself, so the loader must not.
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        multiprocessing_context=_worker_context() if workers else None,
        prefetch_factor=2 if workers else None,
    )


def _as_it_is(item: Any) -> Any:
    """Return the item: the stream already gives batches."""
    return item


def _start_worker(worker: int) -> None:
    """Give the worker one thread and let the training process handle stop signals."""
    torch.set_num_threads(1)
    start_worker()


class _Worker(multiprocessing.Process):
    """A process that ignores SIGTERM, so that ending it takes SIGKILL; it has no state to lose."""

    def terminate(self) -> None:
        """End the process by SIGKILL."""
        self.kill()


def _worker_context() -> BaseContext:
    """Default multiprocessing context, with `_Worker` as its class of processes."""
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    context.Process = _Worker  # pyright: ignore[reportAttributeAccessIssue]
    return context


@atexit.register
def _end_workers() -> None:
    """Kill workers that an error left behind, for which Python would wait at exit."""
    for child in multiprocessing.active_children():
        if isinstance(child, _Worker):
            child.kill()
