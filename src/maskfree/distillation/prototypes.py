"""Class prototypes from a teacher's patch features and the class names.

Source: CLIP-S4 (arXiv:2305.01040), section 3.2, "Target Class Prototypes".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.config.rules import check
from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import RECORD, TeacherMaps
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.files.atomic import read_json
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.label_map import best_of_synonyms
from maskfree.ops.prototypes import segments_of, top_prototypes
from maskfree.progress import Watch, unwatched

# The paper gives no temperature; 1/100 is that of CLIP.
SEGMENT_SCALE = 100.0
"""Factor on a segment's cosines to the class names before the softmax over classes."""
# Number of segments kept, from which unknown classes are drawn.
_POOL = 8192


def prepare_prototypes(
    segmenter: Segmenter,
    maps: TeacherMaps,
    config: PrototypeConfig | None = None,
    watch: Watch = unwatched,
) -> tuple[Prototypes, tuple[str, ...]]:
    """Compute a prototype for each class of a segmenter from the segments of photos.

    A class that is no segment's most similar one gets a prototype of segments of something else.

    Args:
        segmenter: Teacher, with class names.
        maps: Patch features of the photos, made by the same teacher.
        config: Settings; None for the defaults.
        watch: Wraps the photos, to show progress.

    Returns:
        The prototypes, and the names of the classes that are no segment's most similar one.

    Raises:
        FileNotFoundError: There are no maps.
        ValueError: The segmenter has no words, the maps are another model's, or there are fewer
            segments than `top`.
    """
    config = config or PrototypeConfig()
    check(config)
    phrases, synonyms = phrases_of(segmenter)
    _check_teacher(segmenter, maps)

    found = segments(maps, config.num_segments, watch)
    known, won = top_prototypes(
        found, class_cosines(found, phrases, synonyms), config.top, SEGMENT_SCALE
    )

    # A random sample of all segments, for unknown classes. Always the same,
    # as the prototypes are an input of many trainings.
    generator = torch.Generator().manual_seed(0)
    pool = found[torch.randperm(len(found), generator=generator)[:_POOL]]

    # Classes that won no segment, to warn of.
    assert segmenter.vocabulary is not None
    names = tuple("/".join(each) for each in segmenter.vocabulary.classes)
    lost = tuple(name for name, count in zip(names, won.tolist(), strict=True) if not count)
    return Prototypes(names, phrases, known, pool), lost


def segments(
    maps: TeacherMaps, num_segments: int, watch: Watch = unwatched
) -> Float[Tensor, "m d"]:
    """Cluster the patches of every photo into segments.

    Args:
        maps: Patch features of the photos.
        num_segments: Number of segments per photo.
        watch: Wraps the photos, to show progress.

    Returns:
        Mean embedding of each segment of all photos, unit norm.

    Raises:
        FileNotFoundError: There are no maps.
    """
    return torch.cat(
        [segments_of(embeddings, num_segments) for embeddings in watch(maps.all(), "clustering")]
    )


def phrases_of(segmenter: Segmenter) -> tuple[Float[Tensor, "p d"], tuple[int, ...]]:
    """Text embeddings of a segmenter's words and their synonyms.

    Args:
        segmenter: Segmenter with class names.

    Returns:
        The embeddings of all phrases, and the number of phrases of each class.

    Raises:
        ValueError: The segmenter has no words.
    """
    if segmenter.vocabulary is None or segmenter.embeddings is None:
        raise ValueError("no words were chosen: prototypes are those of words")
    synonyms = tuple(map(len, segmenter.vocabulary.classes))
    return segmenter.embeddings[: sum(synonyms)].float().cpu(), synonyms


def class_cosines(
    found: Float[Tensor, "m d"], phrases: Float[Tensor, "p d"], synonyms: tuple[int, ...]
) -> Float[Tensor, "m k"]:
    """Cosine similarity of each segment to each class: the largest over the synonyms of the class.

    Args:
        found: Unit-norm segment embeddings.
        phrases: Unit-norm phrase embeddings, class after class.
        synonyms: Number of phrases of each class.

    Returns:
        Cosines in [-1, 1].
    """
    return best_of_synonyms((found @ phrases.T)[..., None, None], synonyms)[..., 0, 0]


def _check_teacher(segmenter: Segmenter, maps: TeacherMaps) -> None:
    """Raise if the maps are missing, damaged or made by another model."""
    path = maps.folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: `maskfree prepare teacher` makes it")

    try:
        made_by = read_json(path)["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error

    if made_by != segmenter.weights_hash:
        raise ValueError(f"the maps in {maps.folder} were not made by the model {segmenter.name}")
