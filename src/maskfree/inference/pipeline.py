"""The steps from photos to segmentations: read ahead, score windows, turn scores into labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maskfree.ahead import ahead
from maskfree.inference.photos import (
    Chunk,
    HeldPixels,
    OpenedPhoto,
    PhotoError,
    PreparedPhoto,
    prepare_photo,
    read_chunks,
)
from maskfree.inference.postprocessing import Postprocessing
from maskfree.inference.scoring import Scorer
from maskfree.inference.windows import score_windows
from maskfree.results.segmentation import ScoreMap, Segmentation
from maskfree.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from maskfree.inference.segmenter import Segmenter


def segment_photos(
    segmenter: Segmenter, opened: Iterable[OpenedPhoto | PhotoError]
) -> Iterator[Segmentation | PhotoError]:
    """Segment opened photos chunk by chunk, passing errors through.

    Args:
        segmenter: Model with its words and settings.
        opened: Opened photos, and errors in place of those that cannot be read.

    Yields:
        One Segmentation per photo, and the errors, in their order.

    Raises:
        ValueError: No words were chosen, or the model's scores are not finite.
    """
    held = HeldPixels()
    for chunk, scores in _scored_chunks(segmenter, _chunks(segmenter, opened, held)):
        yield from _results(segmenter, chunk, scores, held)


def segment_ahead(
    segmenter: Segmenter, opened: Iterable[OpenedPhoto | PhotoError]
) -> Iterator[Segmentation | PhotoError]:
    """Segment opened photos as `segment_photos` does, with reading and network in threads.

    While the caller uses a result, the next chunk is in the network and the one after it is read.

    Args:
        segmenter: Model with its words and settings.
        opened: Opened photos, and errors in place of those that cannot be read; iterated in a
            thread.

    Yields:
        One Segmentation per photo, and the errors, in their order.

    Raises:
        ValueError: No words were chosen, or the model's scores are not finite.
    """
    held = HeldPixels()
    chunks = ahead(_chunks(segmenter, opened, held))

    with closing(ahead(_scored_chunks(segmenter, chunks))) as scored:
        try:
            for chunk, scores in scored:
                yield from _results(segmenter, chunk, scores, held)
        finally:
            # The reader may wait for photos to be freed.
            held.close()


def _chunks(
    segmenter: Segmenter, opened: Iterable[OpenedPhoto | PhotoError], held: HeldPixels
) -> Iterator[Chunk]:
    """Read photos, resize and pad them for the network, and collect them in chunks."""

    def prepare(photo: Image.Image, name: str) -> PreparedPhoto:
        """Resize and pad a photo for the network."""
        return prepare_photo(photo, name, segmenter.inference, segmenter.method.patch_size)

    return read_chunks(iter(opened), prepare, segmenter.inference.batch_size, held)


def _scored_chunks(
    segmenter: Segmenter, chunks: Iterator[Chunk]
) -> Iterator[tuple[Chunk, deque[Float[Tensor, "k hp wp"]]]]:
    """Chunks with the score maps of their photos."""
    for chunk in chunks:
        photos = [item for item in chunk if not isinstance(item, PhotoError)]
        scores = deque(score_photos(segmenter, photos))
        del photos
        yield chunk, scores
        del chunk


def _results(
    segmenter: Segmenter,
    chunk: Chunk,
    scores: deque[Float[Tensor, "k hp wp"]],
    held: HeldPixels,
) -> Iterator[Segmentation | PhotoError]:
    """Results of the photos of a chunk, and its errors; both queues are emptied."""
    while chunk:
        item = chunk.popleft()
        if isinstance(item, PhotoError):
            yield item
        else:
            yield segmentation_of(segmenter, item, scores.popleft())
            held.add(-item.num_pixels)

        # Free each photo before the next result is made.
        del item


@torch.inference_mode()
def score_photos(
    segmenter: Segmenter, photos: Sequence[PreparedPhoto]
) -> list[Float[Tensor, "k hp wp"]]:
    """Score all classes on the patches of photos.

    Args:
        segmenter: Model with its words and settings.
        photos: Prepared photos.

    Returns:
        Score map of each photo, as `Segmenter.score_map` describes it.

    Raises:
        ValueError: No words were chosen, or the model's scores are not finite.
    """
    steps = postprocessing(segmenter)
    scorer = Scorer(
        method=segmenter.grouped_method,
        name=segmenter.name,
        words=segmenter.read_words,
        inference=segmenter.inference,
        logit_scale=segmenter.logit_scale,
        threshold=segmenter.background.threshold,
        session=segmenter.float_session,
    )

    patch_size = segmenter.method.patch_size
    phrase_scores = score_windows(
        [photo.padded for photo in photos],
        scorer,
        num_scores=sum(steps.synonyms),
        patch_size=patch_size,
        cells_per_patch=patch_size // steps.cell_px,
        inference=segmenter.inference,
    )
    return [steps.class_scores(scores) for scores in phrase_scores]


def postprocessing(segmenter: Segmenter) -> Postprocessing:
    """Return the steps from scores to labels for the words and settings of a segmenter.

    Args:
        segmenter: Model with its words and settings.

    Returns:
        The steps.

    Raises:
        ValueError: No words were chosen.
    """
    return Postprocessing(
        inference=segmenter.inference,
        vocabulary=chosen_words(segmenter),
        background=segmenter.background,
        patch_size=segmenter.method.patch_size,
        logit_scale=segmenter.logit_scale,
    )


def chosen_words(segmenter: Segmenter) -> Vocabulary:
    """Return the vocabulary of a segmenter, which must have one.

    Args:
        segmenter: Model with its words.

    Returns:
        Its vocabulary.

    Raises:
        ValueError: No words were chosen.
    """
    if segmenter.vocabulary is None:
        raise ValueError("no words were chosen: call with_words([...]) first")
    return segmenter.vocabulary


def segmentation_of(
    segmenter: Segmenter, photo: PreparedPhoto, scores: Float[Tensor, "k hp wp"]
) -> Segmentation:
    """Turn a photo's scores into a Segmentation with its record.

    Args:
        segmenter: Model with its words and settings.
        photo: The photo that was scored.
        scores: Score map as `score_photos` returns it.

    Returns:
        The result.
    """
    height, width = photo.image.shape[:2]
    steps = postprocessing(segmenter)
    found = steps.labeled_pixels(
        scores, (height, width), photo.padded, calibration=segmenter.calibration
    )

    # Other kinds have a score per pixel, or scores of phrases.
    score_map = None
    if segmenter.inference.score == "cosine":
        score_map = ScoreMap(scores.half().numpy(), steps.extent((height, width)))

    return Segmentation(
        labels=found.labels,
        words=chosen_words(segmenter).names,
        scores=found.scores,
        confidence=found.confidence,
        score_map=score_map,
        image=photo.image,
        record=_record(segmenter, photo.name, height, width),
    )


def background_record(segmenter: Segmenter) -> dict[str, Any] | None:
    """What a result says of its background.

    Args:
        segmenter: Model with its words.

    Returns:
        The rule, the id of background pixels, the words that were chosen for `scene` or `auto`, and
        "default" if nobody asked for the rule; None without a rule.
    """
    rule = segmenter.background
    if not rule:
        return None

    record: dict[str, Any] = {"rule": str(rule), "id": len(chosen_words(segmenter).classes)}
    if rule.automatic:
        record["words"] = [word for (word,) in rule.words]
    if not rule.chosen:
        record["default"] = True
    return record


def _record(segmenter: Segmenter, name: str, height: int, width: int) -> dict[str, Any]:
    """Everything needed to reproduce the result of a photo."""
    resized = segmenter.inference.resized(height, width)
    return {
        "photo": {"name": name, "width": width, "height": height},
        "words": [list(synonyms) for synonyms in chosen_words(segmenter).classes],
        "background": background_record(segmenter),
        "templates": list(segmenter.templates),
        "resized": {"height": resized[0], "width": resized[1]},
        "inference": asdict(segmenter.inference) | {"patch_px": segmenter.method.patch_size},
        "calibration": asdict(segmenter.calibration),
        "model": {"name": segmenter.name, "weights_sha256": segmenter.weights_hash},
        "runtime": segmenter.runtime,
        "versions": dict(_versions()),
    }


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that results depend on."""
    return tuple((package, version(package)) for package in ("maskfree", "torch", "transformers"))
