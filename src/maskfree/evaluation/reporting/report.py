"""A measured run as one HTML page: scores, classes, confusions, and the photos that went best and worst."""

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

from maskfree.data.benchmarks.catalog import IGNORE, Benchmark, LabeledPhoto
from maskfree.data.photo import read_photo
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.zero_shot import EvalResult
from maskfree.files.atomic import replace_text
from maskfree.inference.segmenter import Segmenter
from maskfree.types import Segmentation

PICTURE_PX = (320, 480)  # width and height at most
JPEG_QUALITY = 70
MOST_ENTRIES = 16  # of a legend
NOT_COUNTED = "does not count"
PAPER = 235  # of label maps without their photo
GRAY = (128, 128, 128)  # of pixels that do not count; no class has a gray
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
    """Write MEASURED to PATH as an HTML page that needs no other file; readers see the old page or the new one.

    The COUNT photos with the best mean IoU and the COUNT with the worst are labeled again, by a segmenter that is
    prepared for PROTOCOL. No photo is both: of few photos the better half are the best. Without SHOW_PHOTOS there are
    label maps only, for a page that may be passed on where the photos may not.

    Raises:
        ValueError, OSError: a photo or its truth cannot be read, or PATH cannot be written.
    """
    lookup, _ = truth_lookup(benchmark, protocol)
    best, worst = extremes(measured.photos, count)

    def shown(chosen: Sequence[int]) -> str:
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
    """Return the COUNT photos with the highest means, best first, and the COUNT lowest, worst first.

    NaNs are left out, equal means keep their order, and no photo is in both: the best have the middle one.

    >>> extremes(np.array([0.5, np.nan, 0.9, 0.1]), count=2)
    ([2, 0], [3])
    """
    known = np.flatnonzero(~np.isnan(means)).tolist()
    best = sorted(known, key=lambda i: -means[i])[: min(count, (len(known) + 1) // 2)]
    rest = [i for i in known if i not in best]
    return best, sorted(rest, key=lambda i: means[i])[:count]


def _scores(row: Row) -> str:
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
    """One row of the table per class, the best first; those that do not occur come last."""
    numbered = list(enumerate(row.iou.items(), 1))
    numbered.sort(key=lambda entry: (entry[1][1] is None, -(entry[1][1] or 0)))
    lines = []
    for number, (name, iou) in numbered:
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
    return f'<tr><td>{escape(truth)}</td><td>{escape(answer)}</td><td class="number">{_percent(share)}</td></tr>'


def _about_photos(measured: EvalResult) -> str:
    unknown = int(np.isnan(measured.photos).sum())
    text = (
        "By each photo's own mean IoU, over the classes that its truth or its answer has where the truth counts. Both "
        "have the same colors; the background is left as it is in the photo, and what does not count is gray."
    )
    return text + (f" Photos left out, since nothing in them counts: {unknown}." if unknown else "")


def _provenance(row: Row) -> str:
    """Everything that the numbers depend on, one row of the table each."""
    settings: dict[str, Any] = {
        name.replace("_", " "): value for name, value in row.protocol.items()
    }
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
    """Show a photo, the answer and the truth beside each other, with one legend."""
    result = segmenter(read_photo(sample.photo))
    if not show_photos:
        result = replace(result, image=np.full_like(result.image, PAPER))
    labels = lookup[sample.read_truth()]
    if labels.shape != result.labels.shape:
        raise ValueError(f"{sample.key}: the photo and its truth differ in size")
    truth, answer = _with_ignored(result, labels), _with_ignored(result, result.labels)
    small_truth, small_answer = _shrunk(truth), _shrunk(answer)
    key = escape(sample.key)
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
    """Give a result other labels, of which IGNORE becomes the last word; the other words keep their colors."""
    num_words = len(result.words)
    ids = np.arange(IGNORE + 1, dtype=np.uint16)
    ids[num_words] = num_words + 1  # the background, if any, stays behind the words
    ids[IGNORE] = num_words
    return replace(result, words=(*result.words, NOT_COUNTED), labels=ids[labels])


def _shrunk(result: Segmentation) -> Segmentation:
    """Scale a result down to at most PICTURE_PX; labels become those of the nearest pixels."""
    height, width = result.labels.shape
    scale = min(1, PICTURE_PX[0] / width, PICTURE_PX[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
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
    """Draw the overlay without its legend, and gray what does not count."""
    height, width = result.labels.shape
    pixels = np.array(result.overlay().crop((0, 0, width, height)))
    pixels[result.labels == len(result.words) - 1] = GRAY
    return Image.fromarray(pixels)


def _legend(truth: Segmentation, answer: Segmentation) -> str:
    """List the names that occur in either, the largest first, with their color and the area that each gives them."""
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
    """Name what occurs, the largest first, for those who do not see the picture."""
    shares = _shares(result)
    largest = np.argsort(-shares, kind="stable")[:MOST_ENTRIES]
    return escape(", ".join(result.names[i] for i in largest if shares[i]))


def _shares(result: Segmentation) -> Float64[np.ndarray, " n"]:
    """Part of the photo that each id covers."""
    return np.bincount(result.labels.ravel(), minlength=len(result.names)) / result.labels.size


def _data_uri(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}%"
