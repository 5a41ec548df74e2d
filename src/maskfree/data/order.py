"""Seeded order of the examples: the part of one stream, and its shuffling."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskfree.data.examples import Example

log = logging.getLogger(__name__)

Read = Callable[[Sequence[str]], Iterator[Example]]


def seed_of(*parts: int | str) -> int:
    """Hash values to a seed that is the same on every machine and in every process.

    Args:
        *parts: Integers and strings that the seed depends on.

    Returns:
        A seed in [0, 2**63).
    """
    # The separator keeps ("a", "bc") and ("ab", "c") apart.
    text = "\x1f".join(map(str, parts)).encode(errors="surrogateescape")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Sources:
    """Sources of shards or photos, of which some are read less often than others."""

    parts: tuple[tuple[str, ...], ...]
    """Shards or photos of each source."""
    shares: tuple[float, ...]
    """Share of each source that a pass reads, in [0, 1]; 1 for the one read most often."""

    @classmethod
    def of(cls, parts: Sequence[Sequence[str]], weights: Sequence[float]) -> Sources:
        """Make sources whose shares are relative to the largest weight.

        Args:
            parts: Shards or photos of each source.
            weights: Weight of each source; empty for equal ones.

        Returns:
            The sources.
        """
        if not weights:
            weights = [1.0] * len(parts)
        shares = tuple(weight / max(weights) for weight in weights)
        return cls(tuple(map(tuple, parts)), shares)

    @property
    def units(self) -> tuple[str, ...]:
        """Shards or photos of all sources.

        Returns:
            They, source by source.
        """
        return tuple(unit for part in self.parts for unit in part)

    def of_pass(self, seed: int, epoch: int) -> tuple[str, ...]:
        """Choose the shards or photos of one pass.

        Over the passes those of a source take turns, so that all are read equally often.

        Args:
            seed: Seed of their order.
            epoch: The pass, from 0.

        Returns:
            The share of each source, each shard or photo at most once.
        """
        chosen: list[str] = []
        for number, (part, share) in enumerate(zip(self.parts, self.shares, strict=True)):
            if share == 1:
                chosen += part
                continue

            order = np.random.default_rng(seed_of(seed, "source", number)).permutation(len(part))
            first, end = int(epoch * share * len(part)), int((epoch + 1) * share * len(part))
            chosen += [part[int(order[place % len(part)])] for place in range(first, end)]
        return tuple(chosen)


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


def tell_few_shards(num_shards: int, num_streams: int) -> None:
    """Log how much more is read where there are fewer shards than streams.

    Args:
        num_shards: Number of shards of a pass.
        num_streams: Number of streams over all processes and workers.
    """
    if num_shards < num_streams:
        log.warning(
            "%d shards are fewer than the %d data streams (processes x data.workers): each stream "
            "reads every shard, %d times as much in all",
            num_shards,
            num_streams,
            num_streams,
        )
