"""Photos of the HTML report: each with its prediction, its truth and a legend."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import numpy as np
from jaxtyping import Float64, UInt, UInt8
from PIL import Image

from maskfree.data.benchmarks.catalog import AnnotatedPhoto
from maskfree.data.photo import read_photo
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.results.page import html_figure, html_swatch, percent
from maskfree.results.segmentation import Segmentation

# Maximum width and height of a picture.
PICTURE_PX = (320, 480)
# Maximum number of entries of a legend.
MAX_ENTRIES = 16
NOT_COUNTED = "does not count"
# Gray level behind label maps that are shown without their photo.
PAPER = 235
# Color of pixels that do not count; no class color is gray.
GRAY = (128, 128, 128)


def photo_section(
    segmenter: Segmenter,
    sample: AnnotatedPhoto,
    lookup: UInt8[np.ndarray, 256],
    mean: float,
    show_photos: bool,
) -> str:
    """Draw a photo with its prediction and truth side by side and a common legend, as HTML.

    Args:
        segmenter: Segmenter prepared for the protocol.
        sample: Labeled photo.
        lookup: Class of each id of the truth.
        mean: Mean IoU of the photo.
        show_photos: Whether to show the photo; without, label maps only.

    Returns:
        HTML of a section.

    Raises:
        ValueError: The photo and its truth differ in size.
        OSError: The photo or its truth cannot be read.
    """
    result = segmenter(read_photo(sample.photo))
    if not show_photos:
        result = replace(result, image=np.full_like(result.image, PAPER))

    labels = lookup[sample.read_truth()]
    if labels.shape != result.labels.shape:
        raise ValueError(f"{sample.key}: the photo and its truth differ in size")

    # Legends count full-size label maps; only the pictures are reduced.
    truth, answer = _with_ignored(result, labels), _with_ignored(result, result.labels)
    small_truth, small_answer = _shrunk(truth), _shrunk(answer)
    key = escape(sample.key)

    # Pictures are named for screen readers, which cannot see the colors.
    answer_text = f"Answer for {key}: {_named(answer)}"
    truth_text = f"Truth of {key}: {_named(truth)}"
    figures = [
        html_figure(_painted(small_answer), "answer", answer_text),
        html_figure(_painted(small_truth), "truth", truth_text),
    ]
    if show_photos:
        picture = Image.fromarray(small_answer.image)
        figures.insert(0, html_figure(picture, "photo", f"Photo {key}"))

    heading = f"<h3>{key}: mean IoU {percent(mean)}</h3>"
    parts = (heading, '<div class="pictures">', *figures, "</div>", _legend(truth, answer))
    return "\n".join(('<section class="photo">', *parts, "</section>"))


def _with_ignored(result: Segmentation, labels: UInt[np.ndarray, "h w"]) -> Segmentation:
    """Replace the labels of a result; IGNORE becomes an extra last word, other colors stay."""
    num_words = len(result.words)

    # The background, if any, stays behind the words.
    ids = np.arange(IGNORE + 1, dtype=np.uint16)
    ids[num_words] = num_words + 1
    ids[IGNORE] = num_words
    return replace(result, words=(*result.words, NOT_COUNTED), labels=ids[labels])


def _shrunk(result: Segmentation) -> Segmentation:
    """Reduce a result to at most PICTURE_PX; labels by nearest neighbor."""
    height, width = result.labels.shape
    scale = min(1, PICTURE_PX[0] / width, PICTURE_PX[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))

    # Indices of the pixels at the centers of the reduced pixels, in integers.
    rows = (np.arange(size[1]) * height + height // 2) // size[1]
    columns = (np.arange(size[0]) * width + width // 2) // size[0]
    image = np.asarray(
        Image.fromarray(result.image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    )

    nearest = np.ix_(rows, columns)
    return replace(
        result, image=image, labels=result.labels[nearest], scores=result.scores[nearest]
    )


def _painted(result: Segmentation) -> Image.Image:
    """Draw the overlay without its legend, with uncounted pixels in gray."""
    height, width = result.labels.shape
    pixels = np.array(result.overlay().crop((0, 0, width, height)))

    # The last word stands for pixels that do not count.
    pixels[result.labels == len(result.words) - 1] = GRAY
    return Image.fromarray(pixels)


def _legend(truth: Segmentation, answer: Segmentation) -> str:
    """List the classes of either map by decreasing area, with their color and both areas."""
    # The area that each class has in the truth and in the prediction.
    shares = np.stack([_shares(truth), _shares(answer)])
    ignored = len(truth.words) - 1

    largest = np.argsort(-shares.max(axis=0), kind="stable").tolist()
    occur = [i for i in largest if shares[:, i].any()]

    items = []
    for i in occur[:MAX_ENTRIES]:
        color, areas = truth.palette[i].tolist(), f"truth {percent(shares[0, i])}"
        if i == ignored:
            color = GRAY
        else:
            areas += f", answer {percent(shares[1, i])}"

        items.append(f"<li>{html_swatch(color)}{escape(truth.names[i])}: {areas}</li>")

    if len(occur) > MAX_ENTRIES:
        items.append(f"<li>and {len(occur) - MAX_ENTRIES} more</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _named(result: Segmentation) -> str:
    """Name the classes that occur, by decreasing area, for the text alternative of the picture."""
    shares = _shares(result)
    largest = np.argsort(-shares, kind="stable")[:MAX_ENTRIES]
    return escape(", ".join(result.names[i] for i in largest if shares[i]))


def _shares(result: Segmentation) -> Float64[np.ndarray, " n"]:
    """Share of the photo that each id covers."""
    return np.bincount(result.labels.ravel(), minlength=len(result.names)) / result.labels.size
