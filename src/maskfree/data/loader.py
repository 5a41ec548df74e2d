"""Endless, seeded streams of training batches that can be resumed exactly.

The position of a stream is a few integers, which a checkpoint stores.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from maskfree.data.config import DataConfig
from maskfree.data.entities.index import EntityIndex
from maskfree.data.examples import (
    DECODE_PX,
    NO_CAPTION,
    REASONS,
    UNREADABLE_PHOTO,
    Example,
    counted,
    decode,
)
from maskfree.data.order import Read, Share, Sources, seed_of, shuffled, tell_few_shards
from maskfree.data.packed import Packed
from maskfree.data.partners import PartnerPhotos, check_entities
from maskfree.data.photo_folders import find_photos, read_photos
from maskfree.data.photo_sources import check_stems
from maskfree.data.sample import Source, Transform
from maskfree.data.shards import find_shards, read_shards
from maskfree.data.workers import start_data_worker, worker_context
from maskfree.types import Batch, TensorRecord

log = logging.getLogger(__name__)


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

    def pin_memory(self) -> Loaded:
        """Copy the batch to page-locked memory; the loader calls it.

        Returns:
            The same with another batch, if its class can.
        """
        if not isinstance(self.batch, TensorRecord | Packed):
            return self
        return replace(self, batch=self.batch.pin_memory())


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
        self.read: Read
        if data.shards:
            self.sources = Sources.of([find_shards([text]) for text in data.shards], data.weights)
            self.read = read_shards
        else:
            self.sources = Sources.of([find_photos(data.images)], ())
            self.read = partial(read_photos, folders=data.images)
        self.units = self.sources.units
        assert self.units, "the caller draws shapes first"

        if data.images and transform.reads_maps:
            check_stems(self.units)

        self.index: EntityIndex | None = None
        if data.index:
            # One process compares the shards for all.
            self.index = EntityIndex.open(
                Path(data.index).expanduser(), self.units, with_fingerprints=not process.index
            )
        # The entities of the index must be those of the method.
        if self.index is not None and transform.entities is not None:
            check_entities(self.index.entities, transform.entities)

        self.data, self.transform, self.batch_size, self.seed = data, transform, batch_size, seed
        self.process = process
        self.num_streams = max(data.workers, 1)
        if data.shards and not process.index:
            tell_few_shards(len(self.sources.of_pass(seed, 0)), process.count * self.num_streams)
        self.go_to([Position()] * self.num_streams, 0)

    def go_to(
        self, positions: Sequence[Position], batches_done: int, num_batches: int | None = None
    ) -> None:
        """Set where the stream starts.

        Args:
            positions: Position after the last batch of each data worker.
            batches_done: Batches that were already taken from all workers together.
            num_batches: Batches of the whole training, by which the transform's `partners_from` is
                counted; None reads partners from the first batch on.
        """
        assert len(positions) == self.num_streams
        self.positions, self.batches_done = tuple(positions), batches_done
        self.num_batches = num_batches

    def __iter__(self) -> Iterator[Loaded | NoSamples]:
        """Iterate over batches without end.

        Yields:
            Batches. If the data hold no usable sample, the last item is a `NoSamples` for the
            caller to raise.
        """
        worker_id = 0
        if worker := get_worker_info():
            worker_id = worker.id
        # Workers take turns, so after n batches it is the turn of stream n modulo their count.
        index = (worker_id + self.batches_done) % len(self.positions)
        samples = self._samples(index, self.batches_done + worker_id)

        try:
            while True:
                chunk = list(itertools.islice(samples, self.batch_size))
                batch = self.transform.collate([sample for sample, _ in chunk])
                _, position = chunk[-1]
                yield Loaded(batch, index, position)
        except NoSamples as error:
            yield error

    def _samples(self, index: int, first_batch: int) -> Iterator[tuple[object, Position]]:
        """Augment the usable samples of one stream, each with the position after it.

        Args:
            index: Number of the stream.
            first_batch: Number of its first batch among those of all streams of the process.

        Yields:
            Samples with the position after them.
        """
        share = Share(
            self.process.index * len(self.positions) + index,
            self.process.count * len(self.positions),
        )

        # Go on from the stored position.
        start = self.positions[index]
        broken, by_reason = start.broken, list(start.by_reason)
        num_read, num_barren_passes = 0, 0
        num_used = 0
        partners = PartnerPhotos(self.index, self.seed)

        for epoch in itertools.count(start.epoch):
            # Only the first pass is resumed in its middle.
            skip = 0
            if epoch == start.epoch:
                skip = start.taken
            examples = itertools.islice(self._shuffled(share, epoch), skip, None)

            # Samples skipped on resuming count as usable: the pass gave some before.
            is_usable = bool(skip)
            for taken, example in enumerate(examples, start=skip + 1):
                num_read += 1
                if example.problem == NO_CAPTION and self.transform.learns_without_captions:
                    example = replace(example, captions=("",), problem="")
                photo = self._decoded(example, by_reason)
                if photo is None:
                    broken += 1
                    continue

                is_usable = True
                partner = None
                if self._uses_partners(first_batch, num_used):
                    partner = partners.draw(example.key, epoch)
                num_used += 1
                source = Source(example.key, photo, example.captions, partner)

                # The seed does not depend on earlier samples, so that resuming changes nothing.
                sample = self.transform.sample(source, seed_of(self.seed, epoch, example.key))
                yield sample, Position(epoch, taken, broken, tuple(by_reason))

            num_barren_passes += 1
            if is_usable:
                num_barren_passes = 0
            # Parts move on with each pass, so after this many passes all data were tried.
            if num_barren_passes == share.count:
                raise self._no_samples(num_read, by_reason)

    def _uses_partners(self, first_batch: int, num_used: int) -> bool:
        """Whether the batch of the next sample of a stream is trained with partners."""
        if not self.transform.takes_partner:
            return False
        if self.num_batches is None:
            return True

        # Streams take turns. One batch early, as a share of float32 may be rounded up.
        batch = first_batch + num_used // self.batch_size * self.num_streams
        return batch + 1 >= self.transform.partners_from * self.num_batches

    def _shuffled(self, share: Share, epoch: int) -> Iterator[Example]:
        """The examples of one pass over a part of the data, shuffled."""
        units = self.sources.of_pass(self.seed, epoch)
        examples = share.examples(units, self.read, self.seed, epoch)
        return shuffled(
            filter(self._is_wanted, examples),
            self.data.shuffle_buffer,
            seed_of(self.seed, "buffer", epoch, share.index),
        )

    def _decoded(self, example: Example, by_reason: list[int]) -> Image.Image | None:
        """Decode a photo; None, and one more of its reason, where it cannot be used."""
        try:
            return decode(example, DECODE_PX)
        # Decoders raise many kinds of errors on broken bytes; training must go on.
        except Exception as error:
            problem = example.problem or f"{UNREADABLE_PHOTO}: {' '.join(str(error).split())}"
            log.warning("skipped sample %r of %s: %s", example.key, example.source, problem)
            by_reason[REASONS.index(problem.partition(":")[0])] += 1
            return None

    def _no_samples(self, num_read: int, by_reason: Sequence[int]) -> NoSamples:
        """The error of data without a usable sample."""
        names = ", ".join(self.units[:3])
        if len(self.units) > 3:
            names += ", ..."
        if self.index:
            names += f" and known to the index {self.data.index}"

        message = f"none of the {num_read} samples read from {names} can be used"
        if reasons := counted(by_reason):
            message += f": {reasons}"
        return NoSamples(message)

    def _is_wanted(self, example: Example) -> bool:
        """Whether the index has the example; unreadable examples pass, so that they are counted."""
        if self.index is None or example.problem:
            return True
        return self.index.find(example.key) is not None


def build_loader(
    stream: Stream, workers: int, pin_memory: bool = False
) -> DataLoader[Loaded | NoSamples]:
    """Build the loader of a stream.

    Args:
        stream: Batches of this process.
        workers: Data worker processes; 0 loads in this process.
        pin_memory: Whether batches come in page-locked memory, which needs a GPU.

    Returns:
        A loader that passes on the stream's items unchanged.
    """
    of_workers: dict[str, Any] = {}
    if workers:
        of_workers = {"multiprocessing_context": worker_context(), "prefetch_factor": 2}

    # The stream makes batches itself, so the loader must not.
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        worker_init_fn=start_data_worker,
        **of_workers,
    )


def _as_it_is(item: Any) -> Any:
    """Return the item: the stream already gives batches."""
    return item
