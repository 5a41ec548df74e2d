"""The result of segmentation: a label and a score for every pixel of a photo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, UInt, UInt8
from PIL import Image

from maskfree.results.cleaning import UNLABELED, at_most, without_crumbs
from maskfree.results.components import connected_regions
from maskfree.results.drawing import count_ids, distinct_colors, draw_overlay, fit_within
from maskfree.results.exports import (
    coco_dataset,
    fiftyone_detections,
    labelme_file,
    supervision_detections,
)
from maskfree.results.notebook import html_text, png_bytes, shortened
from maskfree.results.regions import Region, regions_of
from maskfree.results.saving import save_result

BACKGROUND = "background"
"""Name of the pixels that the background rule takes."""

# In the legend; with brackets, since a word may be "unlabeled".
_UNLABELED_NAME = "(unlabeled)"
_GRAY = 128


class ScoreMap(NamedTuple):
    """Scores of the classes on the grid of patches."""

    scores: Float16[np.ndarray, "k hp wp"]
    """Score of each class on each patch; the background is last, if it is scored."""
    extent: tuple[float, float]
    """Patches down and across that the photo covers; the rest is padding."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Segmentation of a photo: a label and a score for every pixel.

    Example:
        for region in result:
            print(region.name, region.score, region.box, region.area)
        sky = result["sky"]
    """

    labels: UInt[np.ndarray, "h w"]
    """Class id of each pixel at the photo's size: index into `words`, len(words) for background, or
    255 for a pixel whose label was taken off."""
    words: tuple[str, ...]
    """Name of each class."""
    scores: Float16[np.ndarray, "h w"]
    """Winning score of each pixel: a cosine in [-1, 1] unless the record's inference settings say
    otherwise."""
    image: UInt8[np.ndarray, "h w 3"]
    """The upright photo."""
    record: dict[str, Any]
    """How the result was made, as plain values; "words" are lists of synonyms, and "background" is
    None without a background rule."""
    confidence: Float16[np.ndarray, "h w"] | None = None
    """Probability that each pixel's label is the right one of the words, in [0, 1]; None if it is
    not known."""
    score_map: ScoreMap | None = None
    """Score of each class on each patch; None where the model scores pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each id that can occur.

        Returns:
            The words, followed by "background" if there is a background rule.
        """
        if self.record["background"]:
            return (*self.words, BACKGROUND)
        return self.words

    @property
    def palette(self) -> UInt8[np.ndarray, "n 3"]:
        """RGB color of each id; the background is black.

        Returns:
            One color per name, in [0, 255].
        """
        colors = distinct_colors(len(self.words))
        return np.concatenate([colors, np.zeros((len(self.names) - len(self.words), 3), np.uint8)])

    @property
    def masks(self) -> dict[str, Bool[np.ndarray, "h w"]]:
        """Masks of the names that occur.

        Returns:
            Mask by name, in the order of the ids.
        """
        return {region.name: region.mask for region in self}

    def __iter__(self) -> Iterator[Region]:
        """Iterate over the regions: one for each name that occurs, in the order of the ids."""
        return regions_of(self.labels, self.scores, self.confidence, self.names)

    def __getitem__(self, word: str) -> Bool[np.ndarray, "h w"]:
        """Return the mask of a class, as `mask` does."""
        return self.mask(word)

    def __repr__(self) -> str:
        """Return a single line without the arrays."""
        height, width = self.labels.shape
        return f"Segmentation({width}x{height}, words={shortened(self.words)})"

    def _repr_png_(self) -> bytes:
        """Overlay for notebooks."""
        return png_bytes(self.overlay())

    def _repr_html_(self) -> str:
        """Overlay and areas for notebooks."""
        return html_text(self._repr_png_(), self.areas())

    def mask(self, word: str) -> Bool[np.ndarray, "h w"]:
        """Return the mask of a class.

        Args:
            word: Any synonym of the class, or "background"; case does not matter.

        Returns:
            True where the class is.

        Raises:
            ValueError: The word is not among the result's words.
        """
        # Case and repeated spaces do not matter.
        sought = " ".join(word.split()).casefold()

        classes = list(self.record["words"])
        if len(self.names) > len(self.words):
            classes.append([BACKGROUND])

        for index, synonyms in enumerate(classes):
            if sought in map(str.casefold, synonyms):
                return self.labels == index
        raise ValueError(
            f"the word {word!r} is not among the words of this result: {', '.join(self.names)}"
        )

    def regions(self, min_area_px: int = 0) -> Iterator[Region]:
        """Iterate over connected regions: pixels of one name that share edges.

        Args:
            min_area_px: Smallest area of a region; smaller ones are given to their neighbors, as
                `cleaned` does.

        Returns:
            Iterator over the regions, in the order of their first pixel, row by row.

        Raises:
            ValueError: The extra `label` is not installed.
        """
        clean = self.cleaned(min_area_px)
        return connected_regions(clean.labels, clean.scores, clean.confidence, clean.names)

    def cleaned(self, min_area_px: int) -> Segmentation:
        """Give connected regions that are too small to their neighbors, and fill holes so.

        Args:
            min_area_px: Smallest area of a region. A smaller one gets the label of the region
                beside it whose mean score is the best.

        Returns:
            The result without small regions. The confidence of the pixels that changed is the
            largest that a label other than the best one can have.

        Raises:
            ValueError: The extra `label` is not installed.
        """
        if min_area_px <= 1:
            return self

        labels = without_crumbs(self.labels, self.scores, len(self.names), min_area_px)
        confidence = self.confidence
        if confidence is not None:
            confidence = at_most(confidence, labels != self.labels)
        return replace(self, labels=labels, confidence=confidence)

    def abstained(self, below: float) -> Segmentation:
        """Take the label off pixels whose confidence is low.

        Args:
            below: Pixels of a lower confidence get the id 255; in [0, 1].

        Returns:
            The result with unlabeled pixels; its record says the threshold and their fraction.

        Raises:
            ValueError: The threshold is out of range, the result has no confidence, or more than
                255 names.
        """
        if not 0 <= below <= 1:
            raise ValueError(f"abstain {below}: a confidence lies in [0, 1]")
        if self.confidence is None:
            raise ValueError("this result has no confidence: nothing can be left unlabeled by it")

        unsure = self.confidence < below
        fraction = float(np.count_nonzero(unsure) / unsure.size)
        record = {"below": below, "id": UNLABELED, "fraction": fraction}
        return self._unlabeled(unsure, {"abstained": record})

    def where(
        self, min_area: float = 0.0, min_score: float = -1.0, min_confidence: float = 0.0
    ) -> Segmentation:
        """Keep the connected regions that are large and sure enough.

        Args:
            min_area: Smallest fraction of the photo that a region covers, in [0, 1].
            min_score: Smallest mean score of a region.
            min_confidence: Smallest mean confidence of a region, in [0, 1].

        Returns:
            The result in which pixels of the other regions are unlabeled: their id is 255.

        Raises:
            ValueError: The extra `label` is not installed, or there are more than 255 names.

        Example:
            for region in result.where(min_area=0.01).regions():
                print(region.name, region.box)
        """
        dropped = np.zeros(self.labels.shape, bool)
        for region in self.regions():
            # A confidence that is not known (NaN) does not count.
            is_sure = region.score >= min_score and not region.confidence < min_confidence
            if region.area < min_area or not is_sure:
                left, top, right, bottom = region.box
                dropped[top:bottom, left:right] |= region.crop
        return self._unlabeled(dropped, {})

    def to_supervision(self, min_area_px: int = 0) -> Any:
        """Convert the connected regions to `supervision.Detections`; the background is left out.

        Args:
            min_area_px: Smallest area of a region, as in `cleaned`.

        Returns:
            Detections with boxes, masks, class ids and names, and confidences.

        Raises:
            ValueError: supervision or the extra `label` is not installed.
        """
        return supervision_detections(self._objects(min_area_px), self.labels.shape)

    def to_coco(self, min_area_px: int = 0) -> dict[str, Any]:
        """Convert the connected regions to a COCO data set of this photo, without background.

        Args:
            min_area_px: Smallest area of a region, as in `cleaned`.

        Returns:
            Content of an annotation file: masks are run lengths, ids are one higher than here.

        Raises:
            ValueError: The extra `label` is not installed.
        """
        name, size = self.record["photo"]["name"], self.labels.shape
        return coco_dataset(self._objects(min_area_px), self.words, name, size)

    def to_labelme(self, min_area_px: int = 0) -> dict[str, Any]:
        """Convert the connected regions to the content of a labelme file, without background.

        Args:
            min_area_px: Smallest area of a region, as in `cleaned`.

        Returns:
            Content of the JSON file beside the photo: polygons, and masks for regions with holes.

        Raises:
            ValueError: The extra `label` is not installed.
        """
        name, size = self.record["photo"]["name"], self.labels.shape
        return labelme_file(self._objects(min_area_px), name, size)

    def to_fiftyone(self, min_area_px: int = 0) -> Any:
        """Convert the connected regions to `fiftyone.Detections`; the background is left out.

        Args:
            min_area_px: Smallest area of a region, as in `cleaned`.

        Returns:
            Detections with labels, boxes, masks and confidences.

        Raises:
            ValueError: fiftyone or the extra `label` is not installed.
        """
        return fiftyone_detections(self._objects(min_area_px), self.labels.shape)

    def areas(self) -> dict[str, float]:
        """Return the fraction of the photo that each class covers.

        Returns:
            Fractions by name in the order of the ids; they sum to 1, less the unlabeled pixels.
        """
        counts = count_ids(self.labels, len(self.names))
        fractions = (counts / self.labels.size).tolist()
        return dict(zip(self.names, fractions, strict=True))

    def overlay(self, alpha: float = 0.5, max_side_px: int | None = None) -> Image.Image:
        """Draw the label colors over the photo, with a legend of the classes below it.

        Args:
            alpha: Opacity of the colors, in [0, 1]; the background is not colored.
            max_side_px: A photo whose longer side has more pixels is made smaller; None keeps its
                size.

        Returns:
            The picture, as large as the photo plus the legend.

        Raises:
            ValueError: alpha is outside [0, 1], or max_side_px is below 1.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha {alpha}: the overlay's opacity lies in [0, 1]")
        if max_side_px is not None and max_side_px < 1:
            raise ValueError(f"max_side_px {max_side_px} must be at least 1")

        image, labels = self.image, self.labels
        if max_side_px is not None:
            image, labels = fit_within(image, labels, max_side_px)

        palette, areas = self.palette, self.areas()
        unlabeled = labels >= len(self.names)
        if unlabeled.any():
            # One more id, which is not painted either.
            labels = np.where(unlabeled, len(self.names), labels)
            areas = areas | {_UNLABELED_NAME: max(0.0, 1 - sum(areas.values()))}
            palette = np.concatenate([palette, np.full((1, 3), _GRAY, np.uint8)])

        return draw_overlay(
            image,
            labels,
            palette=palette,
            areas=areas,
            num_colored=len(self.words),
            alpha=alpha,
        )

    def show(self) -> None:
        """Show the overlay in the system's image viewer, or in the notebook."""
        self.overlay().show()

    def save(
        self, folder: str | Path, stem: str | None = None, scores: bool = False
    ) -> tuple[Path, ...]:
        """Write the label image, the overlay and the record: all files or none.

        Args:
            folder: Folder for STEM.png (ids, with a palette), STEM.overlay.png (at most 1,600
                pixels a side) and STEM.json; created if missing.
            stem: Stem of the file names; by default the photo's name without its suffix.
            scores: Whether to write the score map, too, as STEM.scores.npz.

        Returns:
            Paths of the files.

        Raises:
            FileExistsError: One of them exists, and was not written by maskfree.
            OSError: They cannot be written.
            ValueError: The photo's name is not UTF-8, or there is no score map.
        """
        stem = stem or Path(self.record["photo"]["name"]).stem
        return save_result(self, Path(folder), stem, scores)

    def _objects(self, min_area_px: int) -> list[Region]:
        """Connected regions without those of the background."""
        return [region for region in self.regions(min_area_px) if region.class_id < len(self.words)]

    def _unlabeled(self, pixels: Bool[np.ndarray, "h w"], note: dict[str, Any]) -> Segmentation:
        """The result without the labels of some pixels, with a note in its record."""
        if len(self.names) > UNLABELED:
            raise ValueError(
                f"{len(self.names)} names are too many for unlabeled pixels, whose id is "
                f"{UNLABELED}: {UNLABELED} are the most"
            )
        labels = np.where(pixels, np.uint8(UNLABELED), self.labels)
        return replace(self, labels=labels, record=self.record | note)
