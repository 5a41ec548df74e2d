"""Prototypes of words among a teacher's segments: hand-made maps, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import RECORD, TeacherMaps
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.distillation.prototypes import (
    class_cosines,
    phrases_of,
    prepare_prototypes,
    segments,
)
from maskfree.hub import loading
from maskfree.inference.segmenter import Segmenter

FOUR = PrototypeConfig(top=2, num_segments=4)


@pytest.fixture
def teacher(tiny_checkpoint: Path) -> Segmenter:
    """Texts along the first three axes of 18: "sea/water" along the second, "sky" the third; "dog"
    the first.
    """
    segmenter = loading.load(tiny_checkpoint).with_words(["dog", "sea/water", "sky"], "none")
    return replace(segmenter, embeddings=torch.eye(18)[[0, 1, 1, 2]])


@pytest.fixture
def maps(tmp_path: Path, teacher: Segmenter) -> TeacherMaps:
    """Three photos, of 4 x 6 patches: the left half like "dog", the right like "sea".

    And of one patch, like "sea".
    """
    made = TeacherMaps(tmp_path / "teacher")
    axes = torch.eye(18)
    dog, sea = (F.normalize(axes[i] + 0.1 * axes[5], dim=0) for i in (0, 1))
    halves = torch.stack([dog, dog, dog, sea, sea, sea]).T[:, None].expand(18, 4, 6)
    for key, map in (("a", halves), ("b", halves), ("c", sea[:, None, None])):
        made.write(key, map)
    (made.folder / RECORD).write_text(json.dumps({"weights_sha256": teacher.weights_hash}))
    return made


def test_prototypes_are_means_of_the_segments_likest_to_a_word(
    teacher: Segmenter, maps: TeacherMaps
):
    found, lost = prepare_prototypes(teacher, maps, FOUR)
    assert (
        found.names == ("dog", "sea/water", "sky")
        and found.synonyms == (1, 2, 1)
        and lost == ("sky",)
    )
    axes = torch.eye(18)
    for row in (0, 1):
        assert_close(
            found.known[row], F.normalize(axes[row] + 0.1 * axes[5], dim=0), atol=1e-3, rtol=0
        )
    assert_close(found.phrases, axes[[0, 1, 1, 2]])
    assert found.known[2].norm().item() == pytest.approx(
        1
    )  # of a word that nothing resembles most: defined, too
    assert_close(found.pool.norm(dim=1), torch.ones(len(found.pool)))


def test_a_photo_of_one_patch_is_one_segment(tmp_path: Path):
    one = TeacherMaps(tmp_path / "one")
    one.write("a", torch.eye(18)[:, :1, None])
    assert torch.equal(segments(one, 36), torch.eye(18)[:1])


def test_the_pool_is_drawn_by_the_seed(
    teacher: Segmenter, maps: TeacherMaps, monkeypatch: pytest.MonkeyPatch
):
    whole = prepare_prototypes(teacher, maps, FOUR)[0].pool
    assert len(whole) == len(segments(maps, 4))
    monkeypatch.setattr("maskfree.distillation.prototypes._POOL", 3)
    first, again = (prepare_prototypes(teacher, maps, FOUR)[0].pool for _ in range(2))
    assert torch.equal(first, whole[:3]) and torch.equal(first, again)


def test_a_class_is_as_close_as_its_closest_phrase(teacher: Segmenter):
    phrases, synonyms = phrases_of(replace(teacher, embeddings=torch.eye(18)[[0, 1, 4, 2]]))
    assert synonyms == (1, 2, 1)
    found = torch.eye(18)[[4, 1, 0, 7]]
    expected = torch.tensor([[0.0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert torch.equal(class_cosines(found, phrases, synonyms), expected)
    with_background = teacher.with_words(["dog", "sky"], "words:wall,sea")
    assert torch.equal(phrases_of(with_background)[0], with_background.embeddings[:2])


def test_what_is_found_can_be_read_again(tmp_path: Path, teacher: Segmenter, maps: TeacherMaps):
    found, _ = prepare_prototypes(teacher, maps, FOUR)
    found.write(tmp_path / "prototypes.safetensors")
    read = Prototypes.read(tmp_path / "prototypes.safetensors")
    assert (
        read.names == found.names
        and torch.equal(read.known, found.known)
        and torch.equal(read.pool, found.pool)
    )


def test_fewer_segments_than_a_prototype_is_the_mean_of(teacher: Segmenter, maps: TeacherMaps):
    count = len(segments(maps, 4))
    with pytest.raises(ValueError, match=f"mean of 50 segments: there are {count}"):
        prepare_prototypes(teacher, maps, replace(FOUR, top=50))
    with pytest.raises(ValueError, match="top is 0, must be at least 1"):
        prepare_prototypes(teacher, maps, replace(FOUR, top=0))


@pytest.mark.parametrize("changes", [{"top": 0}, {"num_segments": 0}])
def test_settings_that_make_no_sense(teacher: Segmenter, maps: TeacherMaps, changes: dict):
    with pytest.raises(ValueError, match="must be"):
        prepare_prototypes(teacher, maps, replace(FOUR, **changes))


def test_maps_of_another_model_or_none(tmp_path: Path, teacher: Segmenter, maps: TeacherMaps):
    with pytest.raises(ValueError, match="were not made by the model tiny"):
        prepare_prototypes(replace(teacher, weights_hash="another"), maps, FOUR)
    with pytest.raises(
        FileNotFoundError, match=r"teacher\.json is missing: `maskfree prepare teacher` makes it"
    ):
        prepare_prototypes(teacher, TeacherMaps(tmp_path), FOUR)
    (maps.folder / "b.safetensors").write_bytes(b"no map")
    with pytest.raises(ValueError, match=r"b\.safetensors is no safetensors file, or is damaged"):
        prepare_prototypes(teacher, maps, FOUR)
    for path in maps.folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no teacher's maps"):
        prepare_prototypes(teacher, maps, FOUR)
    for content in ("{", "[]", "{}"):
        (maps.folder / RECORD).write_text(content)
        with pytest.raises(ValueError, match="is damaged"):
            prepare_prototypes(teacher, maps, FOUR)


def test_no_words(tiny_checkpoint: Path, maps: TeacherMaps):
    with pytest.raises(ValueError, match="no words were chosen"):
        prepare_prototypes(loading.load(tiny_checkpoint), maps, FOUR)
