"""The rest of a pass by other processes than its beginning."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_loader import keys_of, make, shards, take  # noqa: F401 - a fixture

from maskfree.data.loader import Position
from maskfree.data.order import Share
from maskfree.engine.positions import positions_from


@pytest.mark.parametrize(
    ("before", "after"), [((2, 1), (1, 2)), ((1, 4), (2, 2)), ((2, 3), (3, 2))]
)
def test_no_sample_of_a_pass_is_lost_or_read_twice(shards, before, after):  # noqa: F811
    """Some batches by some processes, and the rest of the pass by others."""

    def streams(processes: int, workers: int):
        for index in range(processes):
            for worker in range(workers):
                # Without worker processes, the stream whose turn it is comes first.
                yield make(
                    shards,
                    Share(index, processes),
                    [Position()] * workers,
                    worker,
                    1,
                    workers=workers,
                )

    read: list[str] = []
    saved = []
    for stream in streams(*before):
        batches = take(stream, 1)
        read += keys_of(batches)
        saved.append([batches[-1].position.epoch, batches[-1].position.taken, 0])
    tensors = {"positions": torch.tensor(saved).unflatten(0, before)}

    for index in range(after[0]):
        positions = positions_from(tensors, Share(index, after[0]), after[1])
        for worker in range(after[1]):
            stream = make(shards, Share(index, after[0]), positions, worker, 1, workers=after[1])
            rest = itertools.takewhile(lambda item: item.position.epoch == 0, take(stream, 20))
            read += keys_of(rest)

    everything = keys_of(take(make(shards, batch_size=16), 1))
    assert sorted(read) == sorted(everything)
