"""Endless, seeded streams of training batches, whose position is a few integers, so that a run can continue exactly."""

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
    """A whole pass over the data gave no sample that can be used."""


@dataclass(frozen=True)
class Position:
    """How far a stream has come: the pass it is in, the samples it took of this pass, the broken ones in all passes.

    Attributes:
        epoch: The pass.
        taken: Samples taken of this pass, broken ones too.
        broken: Samples of all passes that could not be used.
        by_reason: How many of these for each of `REASONS`; a state of an earlier version has the sum only.
    """

    epoch: int = 0
    taken: int = 0
    broken: int = 0
    by_reason: tuple[int, ...] = (0,) * len(REASONS)


@dataclass(frozen=True)
class Loaded:
    """A batch, the stream that it came from, and where that stream stands after it."""

    batch: Batch
    stream: int
    position: Position


def seed_of(*parts: int | str) -> int:
    """Hash PARTS to a seed in [0, 2**63), the same on every machine and in every process."""
    text = "\x1f".join(map(str, parts))
    return (
        int.from_bytes(
            hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big"
        )
        >> 1
    )


@dataclass(frozen=True)
class Share:
    """Which part of the data a stream reads: number INDEX of COUNT over all processes and workers."""

    index: int
    count: int

    def examples(
        self, units: Sequence[str], read: Read, seed: int, epoch: int
    ) -> Iterator[Example]:
        """Read this stream's part of pass TURN: whole units where there are enough, else every COUNT-th sample.

        The parts of one pass are disjoint and complete, and move on by one stream with each pass.
        """
        rng = np.random.default_rng(seed_of(seed, "units", epoch))
        shuffled_units = [units[int(i)] for i in rng.permutation(len(units))]
        first = (self.index + epoch) % self.count
        if len(units) >= self.count:
            return read(shuffled_units[first :: self.count])
        return itertools.islice(read(shuffled_units), first, None, self.count)


def shuffled(examples: Iterator[Example], size: int, seed: int) -> Iterator[Example]:
    """Mix a stream through a buffer of SIZE; every example comes out once."""
    rng = np.random.default_rng(seed)
    buffer = list(itertools.islice(examples, size))
    for example in examples:
        slot = rng.integers(size)
        yield buffer[slot]
        buffer[slot] = example
    rng.shuffle(buffer)  # pyright: ignore[reportArgumentType] - a list is a mutable sequence
    yield from buffer


class Stream(IterableDataset[Loaded | NoSamples]):
    """Batches without end for one process; its data workers split the part between them.

    The order, all augmentation and the partners follow from SEED, the pass and the sample's key alone.

    Raises:
        ValueError, OSError: the data are not there, or the index does not fit them.
    """

    def __init__(
        self, data: DataConfig, transform: Transform, batch_size: int, seed: int, process: Share
    ):
        self.units = find_shards(data.shards) if data.shards else find_photos(data.images)
        assert self.units, "the caller draws shapes first"
        self.read: Read = read_shards if data.shards else partial(read_photos, folders=data.images)
        if data.images and transform.reads_maps:
            _check_stems(self.units)
        self.index = (
            EntityIndex.open(Path(data.index).expanduser(), self.units) if data.index else None
        )
        if self.index is not None and transform.entities is not None:
            _check_entities(self.index.entities, transform.entities)
        self.data, self.transform, self.batch_size, self.seed = data, transform, batch_size, seed
        self.process = process
        self.num_streams = max(data.workers, 1)
        self.go_to([Position()] * self.num_streams, 0)

    def go_to(self, positions: Sequence[Position], batches_done: int) -> None:
        """Start where BATCHES_DONE batches, of which POSITIONS has each worker's last, have left off."""
        assert len(positions) == self.num_streams
        self.positions, self.batches_done = tuple(positions), batches_done

    def __iter__(self) -> Iterator[Loaded | NoSamples]:
        """Yield batches; at last `NoSamples`, if the data turn out to hold none, for the caller to raise."""
        worker = get_worker_info()
        # Workers are asked in turn, so after n batches it is the turn of stream n (modulo their number).
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
        """Augment the usable samples of this process's stream INDEX, each with the position after it."""
        share = Share(
            self.process.index * len(self.positions) + index,
            self.process.count * len(self.positions),
        )
        start = self.positions[index]
        broken, by_reason = start.broken, list(start.by_reason)
        barren, seen = 0, 0
        partners = _Partners(
            self.index if self.transform.takes_partner else None, self.data.decode_px, self.seed
        )
        for epoch in itertools.count(start.epoch):
            skip = start.taken if epoch == start.epoch else 0
            mixed = shuffled(
                filter(self._is_wanted, share.examples(self.units, self.read, self.seed, epoch)),
                self.data.shuffle_buffer,
                seed_of(self.seed, "buffer", epoch, share.index),
            )
            usable = bool(skip)
            for taken, example in enumerate(itertools.islice(mixed, skip, None), start=skip + 1):
                seen += 1
                try:
                    photo = decode(example, self.data.decode_px)
                except (
                    Exception
                ) as error:  # decoders raise anything at all on broken bytes; the run must live
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
                yield (
                    self.transform.sample(source, seed_of(self.seed, epoch, example.key)),
                    Position(epoch, taken, broken, tuple(by_reason)),
                )
            barren = 0 if usable else barren + 1
            if (
                barren == share.count
            ):  # parts move on with each pass, so this amounts to all of the data
                named = ", ".join(self.units[:3]) + (", ..." if len(self.units) > 3 else "")
                known = f" and known to the index {self.data.index}" if self.index else ""
                reasons = counted(by_reason)
                raise NoSamples(
                    f"none of the {seen} samples read from {named}{known} can be used"
                    + (f": {reasons}" if reasons else "")
                )

    def _is_wanted(self, example: Example) -> bool:
        """Whether the index has it; what cannot be read is let through, to be counted."""
        return (
            self.index is None or bool(example.problem) or self.index.find(example.key) is not None
        )


class _Partners:
    """Draws a photo's partner; says so, once a pass, where one cannot be read, and the photo goes without it."""

    def __init__(self, index: EntityIndex | None, decode_px: int, seed: int):
        self._index, self._decode_px, self._seed = index, decode_px, seed
        self._last_complaint = -1

    def draw(self, key: str, epoch: int) -> Partner | None:
        """Return the partner of photo KEY in pass TURN; None without an index, or where no other shares an entity."""
        row = self._index.find(key) if self._index else None
        if self._index is None or row is None:
            return None
        try:
            found = self._index.partner(
                row, np.random.default_rng(seed_of(self._seed, "partner", epoch, key))
            )
            return Partner(found[0], decode(found[1], self._decode_px)) if found else None
        except Exception as error:  # as for the photo itself, which is not lost
            if epoch != self._last_complaint:
                log.warning("no partner for sample %r: %s", key, " ".join(str(error).split()))
            self._last_complaint = epoch
            return None


def _check_stems(photos: Sequence[str]) -> None:
    """See that no two photos share a stem, by which the files about them are told apart."""
    known: dict[str, str] = {}
    for photo in photos:
        stem = file_stem(photo).casefold()
        if stem in known:
            raise ValueError(
                f"{known[stem]} and {photo} have one name, {stem}: maps of photos are told apart by it"
            )
        known[stem] = photo


def _check_entities(named: Sequence[str], known: Sequence[str]) -> None:
    if unknown := sorted(set(named).difference(known)):
        raise ValueError(
            f"the index has the entity {unknown[0]!r}, which is not in the method's list: "
            "name the index's entities.txt with --method.entities"
        )


def build_loader(stream: Stream, workers: int) -> DataLoader[Loaded | NoSamples]:
    """Run STREAM on WORKERS processes, or in this one for 0."""
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
    return item


def _start_worker(worker: int) -> None:
    """Give the worker one thread; a stop of the run is the training process's business."""
    torch.set_num_threads(1)
    start_worker()


class _Worker(multiprocessing.Process):
    """A process that ignores SIGTERM, so that ending it takes SIGKILL; there is nothing it could lose."""

    def terminate(self) -> None:
        self.kill()


def _worker_context() -> BaseContext:
    """Return the usual way of starting processes, for processes of that class."""
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    context.Process = _Worker  # pyright: ignore[reportAttributeAccessIssue]
    return context


@atexit.register
def _end_workers() -> None:
    """End workers that an error left behind; else Python waits for them at its end, after a vain SIGTERM."""
    for child in multiprocessing.active_children():
        if isinstance(child, _Worker):
            child.kill()
