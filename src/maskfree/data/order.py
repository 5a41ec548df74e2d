"""Seeded order of the examples: the part of one stream, and its shuffling."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskfree.data.examples import Example

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
