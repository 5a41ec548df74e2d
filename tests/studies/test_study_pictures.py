"""Each pixel has its group, and an entity the group that fits it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskfree.inference.segmenter import Segmenter
from maskfree.types import Groups
from studies.pictures import entity_in, groups_of

RED, BLUE, NOWHERE = torch.eye(3)


class Halves(torch.nn.Module):
    """A left and a right group, and a third that is nowhere.

    The texts are "red", "blue" and "nowhere".
    """

    patch_size = 16

    def grouped(self, grouping):
        return self

    def group(self, images):
        height, width = images.shape[2] // 16, images.shape[3] // 16
        right = (torch.arange(width) >= width / 2).float().expand(height, width)
        assignment = torch.stack([1 - right, right, torch.zeros_like(right)])[None]
        embeddings = torch.stack([RED, BLUE, NOWHERE])[None]
        return Groups(embeddings, assignment, RED[None], (height, width))


@pytest.fixture
def segmenter(monkeypatch):
    whole = Segmenter(method=Halves(), tokenizer=lambda texts: texts, name="halves")
    known = {"red": RED, "blue": BLUE, "nothing": F.normalize(NOWHERE + 0.1 * BLUE, dim=0)}
    monkeypatch.setattr(
        Segmenter,
        "with_words",
        lambda self, words, _: replace(self, embeddings=known[words[0]][None]),
    )
    return whole


def test_groups_are_where_they_are_at_the_photos_size(segmenter, photo):
    found = groups_of(segmenter, photo((60, 40)))
    assert found.labels.shape == (40, 60)
    assert found.words == ("group 1", "group 2", "group 3")
    assert (found.labels[:, :28] == 0).all()
    assert (found.labels[:, 32:] == 1).all()
    assert found.overlay().width >= 60


def test_an_entity_is_the_group_that_is_closest_of_those_with_pixels(segmenter, photo):
    found = entity_in(segmenter, photo((60, 40)), "blue")
    assert found.names == ("blue", "background")
    assert found.mask("blue")[:, 32:].all()
    assert not found.mask("blue")[:, :28].any()
    assert np.array_equal(entity_in(segmenter, photo((60, 40)), "nothing").labels, found.labels)


def test_pixels_alone_are_no_groups(segmenter, photo, monkeypatch):
    pixels = Groups(torch.eye(3)[None], None, RED[None], (1, 3))
    monkeypatch.setattr(Halves, "group", lambda self, images: pixels)
    with pytest.raises(ValueError, match="'halves' groups no pixels"):
        groups_of(segmenter, photo((60, 40)))
