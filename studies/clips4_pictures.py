"""Pictures of CLIP-S4's study beside charts: pixel embeddings as colors, and retrieved segments.

Source: CLIP-S4 (arXiv:2305.01040), Fig. 1a and 4b.

Differs: colors are principal components, since the paper names no projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from maskfree.data.benchmarks.catalog import AnnotatedPhoto
from maskfree.data.photo import read_photo
from maskfree.evaluation.probes.config import KnnConfig
from maskfree.evaluation.probes.knn import segments_of
from maskfree.evaluation.reporting.chart_style import check_suffix, save, style
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter

_INCHES = 1.5  # side of a panel
_SIDE_PX = 96  # of a photo, as an SVG holds every pixel of it
_RIGHT, _WRONG = "#009e73", "#e69f00"


def embedding_colors(
    values: Sequence[Float[Tensor, "d h w"]],
) -> list[Float[np.ndarray, "h w 3"]]:
    """Color maps of embeddings by their first three principal components.

    Args:
        values: Embeddings of one photo by several models, in one space.

    Returns:
        RGB in [0, 1] of each map; equal embeddings have equal colors in all maps.
    """
    together = torch.cat([each.flatten(1).T for each in values]).double()
    centered = together - together.mean(0)
    _, axes = torch.linalg.eigh(centered.T @ centered)
    axes = axes[:, -3:].flip(1)

    # The sign is open: the largest coefficient is made positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    places = centered @ (axes * largest.sign())

    # A few outliers would leave the rest gray.
    low, high = places.quantile(0.02, 0), places.quantile(0.98, 0)
    colors = ((places - low) / (high - low).clamp_min(1e-9)).clamp(0, 1).float()
    parts = colors.split([each[0].numel() for each in values])
    return [part.view(*each.shape[1:], 3).numpy() for part, each in zip(parts, values, strict=True)]


@torch.inference_mode()
def draw_embeddings(models: Mapping[str, Segmenter], photos: Sequence[Path], path: Path) -> Path:
    """Draw Fig. 1a: photos, and the pixel embeddings of each model as colors.

    Args:
        models: Models with one embedding space, by name.
        photos: Photos, a row each.
        path: SVG or PNG to write.

    Returns:
        `path`.
    """
    check_suffix(path)
    with style():
        size = (_INCHES * (1 + len(models)), _INCHES * len(photos))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(photos), 1 + len(models), squeeze=False)
        for row, photo_path in zip(panels, photos, strict=True):
            photo = read_photo(photo_path)
            found = [embed(model, photo) for model in models.values()]
            maps = [each.at(*each.num_cells()).cpu() for each in found]
            photo.thumbnail((_SIDE_PX, _SIDE_PX))
            row[0].imshow(photo)
            for axes, colors in zip(row[1:], embedding_colors(maps), strict=True):
                axes.imshow(Image.fromarray((255 * colors).astype(np.uint8)).resize(photo.size))

        for axes, name in zip(panels[0], ("photo", *models), strict=True):
            axes.set_title(name)
        for axes in panels.flat:
            axes.set_axis_off()
        return save(figure, path)


@dataclass(frozen=True)
class Retrieved:
    """A segment that fits a word, with the photo it lies in."""

    photo: Path
    inside: Bool[np.ndarray, "h w"]
    """Pixels of the segment, on a grid over the photo."""
    cosine: float
    """Cosine of its embedding and the word's."""
    right: bool
    """Whether most of its labeled pixels are of the word's class."""


@torch.inference_mode()
def retrieve(
    model: Segmenter, samples: Sequence[AnnotatedPhoto], classes: Mapping[int, str], count: int
) -> dict[str, list[Retrieved]]:
    """Find the segments that fit words best, at most one of a photo.

    Args:
        model: Model whose embeddings are compared.
        samples: Labeled photos.
        classes: Word of each wanted class, by its number in the truth maps.
        count: Number of segments of each word.

    Returns:
        Segments by word, best first.
    """
    texts = model.with_words(list(classes.values()), "none").embeddings
    assert texts is not None
    best: dict[str, list[Retrieved]] = {name: [] for name in classes.values()}
    for sample in samples:
        photo, truth = read_photo(sample.photo), torch.from_numpy(sample.read_truth().copy())
        segments = segments_of(model, photo, KnnConfig())
        ids = segments.ids.cpu()
        cosines = segments.embeddings.cpu() @ texts.cpu().float().T
        cosines[segments.sizes.cpu() == 0] = -1
        seen = _sampled(truth, ids.shape)
        for column, (number, name) in enumerate(classes.items()):
            inside = ids == int(cosines[:, column].argmax())
            # The class of most pixels; with none labeled, no class.
            votes = seen[inside & (seen != 255)].bincount(minlength=256)
            right = bool(votes.any()) and int(votes.argmax()) == number
            cosine = float(cosines[:, column].max())
            best[name].append(Retrieved(sample.photo, inside.numpy(), cosine, right))
    return {
        name: sorted(found, key=lambda each: -each.cosine)[:count] for name, found in best.items()
    }


def _sampled(truth: Int[Tensor, "h w"], size: Sequence[int]) -> Int[Tensor, "hp wp"]:
    """Truth at the middles of the cells of a grid."""
    rows, columns = (
        ((torch.arange(cells) + 0.5) * side / cells).long()
        for cells, side in zip(size, truth.shape, strict=True)
    )
    return truth[rows[:, None], columns].long()


def draw_retrieved(found: Mapping[str, Mapping[str, Sequence[Retrieved]]], path: Path) -> Path:
    """Draw Fig. 4b: for each word and model the segments that fit best, wrong ones in orange.

    Args:
        found: What `retrieve` gave, by model.
        path: SVG or PNG to write.

    Returns:
        `path`.
    """
    check_suffix(path)
    lines = [
        (f"{word}\n{model}", best)
        for word in next(iter(found.values()))
        for model, words in found.items()
        for best in [words[word]]
    ]
    columns = max(len(best) for _, best in lines)
    with style():
        size = (_INCHES * columns, _INCHES * len(lines))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(lines), columns, squeeze=False)
        for row, (title, best) in zip(panels, lines, strict=True):
            row[0].set_title(title, loc="left", fontsize=8)
            for axes, each in zip(row, best, strict=False):
                photo = read_photo(each.photo)
                photo.thumbnail((_SIDE_PX, _SIDE_PX))
                inside = Image.fromarray(each.inside).resize(photo.size, Image.Resampling.NEAREST)
                axes.imshow(photo)
                color = _RIGHT if each.right else _WRONG
                axes.contour(np.asarray(inside).astype(float), [0.5], colors=[color])
        for axes in panels.flat:
            axes.set_axis_off()
        return save(figure, path)
