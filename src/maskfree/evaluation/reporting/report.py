"""HTML report of an evaluation: scores, classes, confusions, and the best and worst photos."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt, UInt8
from PIL import Image

from maskfree.data.benchmarks.catalog import Benchmark, LabeledPhoto
from maskfree.data.photo import read_photo
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.zero_shot import EvalResult
from maskfree.files.atomic import replace_text
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from maskfree.results.segmentation import Segmentation

# Maximum width and height of a picture.
PICTURE_PX = (320, 480)
# Keeps a page of many pictures small.
JPEG_QUALITY = 70
# Maximum number of entries of a legend.
MOST_ENTRIES = 16
NOT_COUNTED = "does not count"
# Gray level behind label maps that are shown without their photo.
PAPER = 235
# Color of pixels that do not count; no class color is gray.
GRAY = (128, 128, 128)
TEMPLATE = Path(__file__).with_name("report.html")


def write_report(
    measured: EvalResult,
    prepared_segmenter: Segmenter,
    benchmark: Benchmark,
    samples: Sequence[LabeledPhoto],
    protocol: Protocol,
    path: Path,
    count: int = 10,
    show_photos: bool = True,
) -> Path:
    """Write an evaluation to a self-contained HTML page, atomically.

    The best and worst photos are segmented again. No photo is in both groups: if there are few, the
    better half are the best.

    Args:
        measured: Result of the evaluation.
        prepared_segmenter: Segmenter prepared for the protocol.
        benchmark: Benchmark that was evaluated.
        samples: Labeled photos, in the order of `measured.photos`.
        protocol: Protocol of the evaluation.
        path: HTML file to write.
        count: Number of best photos and of worst photos.
        show_photos: Whether to show photos; without, the page has label maps only and can be shared
            where the photos cannot.

    Returns:
        `path`.

    Raises:
        ValueError: A photo or its truth cannot be read.
        OSError: A photo or its truth cannot be read, or `path` cannot be written.
    """
    lookup, _ = truth_lookup(benchmark, protocol)
    best, worst = extremes(measured.photos, count)

    def shown(chosen: Sequence[int]) -> str:
        """Render photos.

        Args:
            chosen: Indices of the photos.

        Returns:
            HTML of the photos, in this order.
        """
        sections = [
            _photo(prepared_segmenter, samples[i], lookup, float(measured.photos[i]), show_photos)
            for i in chosen
        ]
        return "\n".join(sections) or "<p>None.</p>"

    row = measured.row
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{row.benchmark}: {row.model} by the protocol {row.protocol_name}"),
        subject=escape(
            f"{benchmark.title}. {row.num_photos} photos. Model {row.model}, weights {row.weights_sha256[:12]}; "
            f"{row.protocol['names']} names, background {row.protocol['background']}."
        ),
        scores=_scores(row),
        num_confusions=len(row.confusions),
        classes=_classes(row),
        confusions="\n".join(_confusion(*pair) for pair in row.confusions),
        about_photos=_about_photos(measured),
        best=shown(best),
        worst=shown(worst),
        protocol=_provenance(row),
    )

    replace_text(path, page)
    return path


def extremes(means: Float64[np.ndarray, " n"], count: int) -> tuple[list[int], list[int]]:
    """Select the photos with the highest and the lowest mean IoU.

    NaN is left out, ties keep their order, and no photo is in both groups: the middle one is among
    the best.

    Args:
        means: Mean IoU of each photo, or NaN.
        count: Maximum number of photos in each group.

    Returns:
        Indices of the best photos, best first, and of the worst photos, worst first.

    Example:
        >>> extremes(np.array([0.5, np.nan, 0.9, 0.1]), count=2)
        ([2, 0], [3])
    """
    known = np.flatnonzero(~np.isnan(means)).tolist()
    best = sorted(known, key=lambda i: -means[i])[: min(count, (len(known) + 1) // 2)]

    rest = [i for i in known if i not in best]
    return best, sorted(rest, key=lambda i: means[i])[:count]


def _scores(row: Row) -> str:
    """HTML list of the scores."""
    figures = {
        "mean IoU": row.mean_iou,
        "pixel accuracy": row.pixel_accuracy,
        "mean accuracy": row.mean_accuracy,
        "frequency-weighted IoU": row.frequency_weighted_iou,
    }

    if row.boundary_f is not None:
        figures["boundary F"] = row.boundary_f
    figures |= {
        name if name.startswith("harmonic") else f"mean IoU, {name}": v
        for name, v in row.parts.items()
    }

    return "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{_percent(v)}</dd></div>" for name, v in figures.items()
    )


def _classes(row: Row) -> str:
    """HTML rows of the classes, best first; classes that do not occur come last."""
    numbered = list(enumerate(row.iou.items(), 1))

    # The number shown is that of the class list; None sorts last.
    numbered.sort(key=lambda entry: (entry[1][1] is None, -(entry[1][1] or 0)))

    lines = []
    for number, (name, iou) in numbered:
        # The largest confusions of the class.
        taken = [
            f"{answer} ({_percent(share)})"
            for truth, answer, share in row.confusions
            if truth == name
        ]

        bar = f'<div style="width:{100 * iou:.1f}%"></div>' if iou is not None else ""
        lines.append(
            f'<tr><td class="number">{number}</td><th scope="row">{escape(name)}</th>'
            f'<td class="number">{_percent(iou)}</td><td class="bar">{bar}</td><td>{escape(", ".join(taken))}</td></tr>'
        )

    return "\n".join(lines)


def _confusion(truth: str, answer: str, share: float) -> str:
    """HTML row of a confusion."""
    return f'<tr><td>{escape(truth)}</td><td>{escape(answer)}</td><td class="number">{_percent(share)}</td></tr>'


def _about_photos(measured: EvalResult) -> str:
    """Explanation of the pictures."""
    unknown = int(np.isnan(measured.photos).sum())
    text = (
        "By each photo's own mean IoU, over the classes that its truth or its answer has where the truth counts. Both "
        "have the same colors; the background is left as it is in the photo, and what does not count is gray."
    )
    return text + (f" Photos left out, since nothing in them counts: {unknown}." if unknown else "")


def _provenance(row: Row) -> str:
    """HTML rows of everything that the scores depend on."""
    settings: dict[str, Any] = {
        name.replace("_", " "): value for name, value in row.protocol.items()
    }

    # Fields of the row that are not part of the protocol.
    settings |= {
        "benchmark": row.benchmark,
        "photos": row.num_photos,
        "photos' paths, SHA-256": row.files_sha256,
        "class names": row.names_file,
        "class names, SHA-256": row.names_sha256,
        "model": row.model,
        "weights, SHA-256": row.weights_sha256,
        "seconds per photo": f"{row.seconds_per_photo:.3f}",
        "command": row.command,
        "date": row.date,
        "versions": row.versions,
        "machine": row.machine,
    }

    return "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(_plain(value))}</code></td></tr>'
        for name, value in settings.items()
    )


def _plain(value: Any) -> str:
    """Format a JSON value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _photo(
    segmenter: Segmenter,
    sample: LabeledPhoto,
    lookup: UInt8[np.ndarray, 256],
    mean: float,
    show_photos: bool,
) -> str:
    """HTML of a photo with its prediction and truth side by side and a common legend."""
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
    pictures = [
        *([(Image.fromarray(small_answer.image), "photo", f"Photo {key}")] if show_photos else []),
        (_painted(small_answer), "answer", f"Answer for {key}: {_named(answer)}"),
        (_painted(small_truth), "truth", f"Truth of {key}: {_named(truth)}"),
    ]

    figures = [
        f'<figure><img src="{_data_uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{text}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for picture, caption, text in pictures
    ]

    heading = f"<h3>{key}: mean IoU {_percent(mean)}</h3>"
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
    rows, columns = (
        (np.arange(n) * m + m // 2) // n for n, m in ((size[1], height), (size[0], width))
    )
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

    occur = [
        i for i in np.argsort(-shares.max(axis=0), kind="stable").tolist() if shares[:, i].any()
    ]

    items = []
    for i in occur[:MOST_ENTRIES]:
        red, green, blue = GRAY if i == ignored else truth.palette[i].tolist()
        figures = [
            f"{side} {_percent(share)}"
            for side, share in zip(("truth", "answer"), shares[:, i], strict=True)
        ]

        swatch = f'<span class="swatch" style="background:#{red:02x}{green:02x}{blue:02x}"></span>'
        items.append(
            f"<li>{swatch}{escape(truth.names[i])}: {figures[0] if i == ignored else ', '.join(figures)}</li>"
        )

    if len(occur) > MOST_ENTRIES:
        items.append(f"<li>and {len(occur) - MOST_ENTRIES} more</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _named(result: Segmentation) -> str:
    """Name the classes that occur, by decreasing area, for the text alternative of the picture."""
    shares = _shares(result)
    largest = np.argsort(-shares, kind="stable")[:MOST_ENTRIES]
    return escape(", ".join(result.names[i] for i in largest if shares[i]))


def _shares(result: Segmentation) -> Float64[np.ndarray, " n"]:
    """Share of the photo that each id covers."""
    return np.bincount(result.labels.ravel(), minlength=len(result.names)) / result.labels.size


def _data_uri(picture: Image.Image) -> str:
    """Encode a picture as a JPEG data URI."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _percent(fraction: float | None) -> str:
    """Format a score in percent; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}%"
