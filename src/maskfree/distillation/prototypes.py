"""Known classes among what a teacher sees: from its maps of photos and the words to the prototypes of training.

Source: CLIP-S4 (CVPR 2023), section 3.2, "Target Class Prototypes".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.config.rules import Count, Positive, Width, check
from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import RECORD, TeacherMaps
from maskfree.files.atomic import read_json
from maskfree.inference.segmenter import Segmenter
from maskfree.losses.pseudo_labels import best_of_synonyms
from maskfree.ops.prototypes import segments_of, top_prototypes
from maskfree.progress import Watch, unwatched

_POOL = 8192  # segments kept for unknown classes to be drawn from


@dataclass(frozen=True)
class PrototypeConfig:
    """How known classes are found among a teacher's segments; the numbers are the paper's."""

    top: Count = 32
    """Segments, those likest to a class, whose mean is its prototype (m)."""
    num_segments: Width = 36
    """Segments of each photo."""
    temperature: Positive = 0.01
    """Of the softmax over the classes of a segment's cosines to their names; the paper names none."""
    seed: int = 0
    """Of the choice of segments that are kept for unknown classes."""


def prepare_prototypes(
    segmenter: Segmenter,
    maps: TeacherMaps,
    config: PrototypeConfig | None = None,
    watch: Watch = unwatched,
) -> tuple[Prototypes, tuple[str, ...]]:
    """Find prototypes of SEGMENTER's words among the segments of the photos that MAPS, which it made, are of.

    Return them, and the words that no segment resembles most: these have prototypes of segments of something else.

    Raises:
        FileNotFoundError: there are no maps.
        ValueError: SEGMENTER has no words, the maps are another model's, or there are fewer segments than `top`.
    """
    config = config or PrototypeConfig()
    check(config)
    phrases, synonyms = phrases_of(segmenter)
    _check_teacher(segmenter, maps)
    found = segments(maps, config.num_segments, watch)
    known, won = top_prototypes(
        found, class_cosines(found, phrases, synonyms), config.top, 1 / config.temperature
    )
    generator = torch.Generator().manual_seed(config.seed)
    pool = found[torch.randperm(len(found), generator=generator)[:_POOL]]
    assert segmenter.vocabulary is not None
    names = tuple("/".join(each) for each in segmenter.vocabulary.classes)
    lost = tuple(name for name, count in zip(names, won.tolist(), strict=True) if not count)
    return Prototypes(names, phrases, known, pool), lost


def segments(
    maps: TeacherMaps, num_segments: int, watch: Watch = unwatched
) -> Float[Tensor, "m d"]:
    """Return the mean embeddings of the segments of all photos, unit norm.

    Raises:
        FileNotFoundError: there are no maps.
    """
    return torch.cat(
        [segments_of(embeddings, num_segments) for embeddings in watch(maps.all(), "clustering")]
    )


def phrases_of(segmenter: Segmenter) -> tuple[Float[Tensor, "p d"], tuple[int, ...]]:
    """Return the embeddings of the words and their synonyms, and how many of these each class has.

    Raises:
        ValueError: SEGMENTER has no words.
    """
    if segmenter.vocabulary is None or segmenter.embeddings is None:
        raise ValueError("no words were chosen: prototypes are those of words")
    synonyms = tuple(map(len, segmenter.vocabulary.classes))
    return segmenter.embeddings[: sum(synonyms)].float().cpu(), synonyms


def class_cosines(
    found: Float[Tensor, "m d"], phrases: Float[Tensor, "p d"], synonyms: tuple[int, ...]
) -> Float[Tensor, "m k"]:
    """Return each segment's cosine to each class: that to the best of its phrases."""
    return best_of_synonyms((found @ phrases.T)[..., None, None], synonyms)[..., 0, 0]


def _check_teacher(segmenter: Segmenter, maps: TeacherMaps) -> None:
    path = maps.folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: `maskfree prepare teacher` makes it")
    try:
        made_by = read_json(path)["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if made_by != segmenter.weights_hash:
        raise ValueError(f"the maps in {maps.folder} were not made by the model {segmenter.name}")
