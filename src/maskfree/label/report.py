"""HTML report of a labeled data set: words, confidence, examples, what was left out, settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from maskfree.data.photo import read_photo
from maskfree.files.atomic import escape as escape_bytes
from maskfree.files.atomic import replace_text
from maskfree.label.classes import UNLABELED_COLOR, colors_of_ids
from maskfree.label.labeled import UNLABELED, LabelClass
from maskfree.label.manifest import Manifest
from maskfree.label.photo_row import DONE, FAILED, PhotoRow
from maskfree.label.store import Store
from maskfree.label.tally import LabelTally
from maskfree.results.page import html_figure, html_page, html_swatch, percent, settings_rows

REPORT = "report.html"
"""File of the report, in the folder of the data set."""

_TEMPLATE = Path(__file__).with_name("report.html")
# Photos of each kind that are shown.
_EXAMPLES = 8
# Photos that could not be labeled of which the reasons are listed.
_MAX_REASONS = 50
# Longest side of a picture, about as wide as two of them fit beside each other on a page.
_PICTURE_PX = 320


def write_report(store: Store, record: dict[str, Any]) -> Path:
    """Write the report of a data set, atomically.

    Args:
        store: The data set.
        record: What was asked for, and what it was made with.

    Returns:
        The file.

    Raises:
        ValueError: The manifest is damaged.
        OSError: The file cannot be written.
    """
    with Manifest(store.folder) as manifest:
        counts = manifest.count()
        tally = LabelTally.of(manifest.figures())
        least = list(manifest.least_certain(_EXAMPLES))
        most = list(manifest.most_certain(_EXAMPLES))
        failed = list(manifest.failed(_MAX_REASONS))

    # Of a small data set, no photo is among both.
    shown = {row.id for row in least}
    most = [row for row in most if row.id not in shown]

    title = f"Labeled photos: {store.folder.resolve().name}"
    body = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_text(title),
        subject=_text(
            f"Model {record['asked']['model']}, weights {record['made']['weights_sha256'][:12]}; "
            f"background {record['asked']['background']}."
        ),
        scores=_scores(counts, tally),
        words="\n".join(_word_rows(store.classes, tally)),
        histogram="\n".join(_histogram_rows(tally)),
        least=_examples(store, least),
        most=_examples(store, most),
        about_left_out=_about_left_out(counts[FAILED], tally),
        left_out="\n".join(_failed_row(row) for row in failed),
        settings=settings_rows(_settings(record)),
    )

    path = store.folder / REPORT
    replace_text(path, html_page(title, body))
    return path


def _scores(counts: dict[str, int], tally: LabelTally) -> str:
    """HTML list of the main figures."""
    figures = {
        "photos": f"{counts[DONE]:,}",
        "not labeled": f"{counts[FAILED]:,}",
        "mean confidence": percent(tally.mean_confidence),
        "unlabeled area": percent(tally.mean_unlabeled),
    }
    return "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in figures.items()
    )


def _word_rows(classes: Sequence[LabelClass], tally: LabelTally) -> Iterable[str]:
    """A row of each word, the largest one first."""
    for each in sorted(classes, key=lambda each: -tally.area(each.name)):
        area = tally.area(each.name)
        bar = f'<div style="width:{100 * area:.1f}%"></div>' if area else ""
        yield (
            f'<tr><th scope="row">{html_swatch(each.color)}{_text(each.name)}</th>'
            f'<td class="number">{tally.num_photos[each.name]:,}</td>'
            f'<td class="number">{percent(area)}</td><td class="bar">{bar}</td>'
            f'<td class="number">{percent(tally.confidence(each.name))}</td></tr>'
        )


def _histogram_rows(tally: LabelTally) -> Iterable[str]:
    """A row of each range of confidence."""
    most = max(1, *tally.histogram)
    for index, number in enumerate(tally.histogram):
        low, high = index / len(tally.histogram), (index + 1) / len(tally.histogram)
        bar = f'<div style="width:{100 * number / most:.1f}%"></div>' if number else ""
        yield (
            f'<tr><th scope="row">{low:.0%} to {high:.0%}</th>'
            f'<td class="number">{number:,}</td><td class="bar">{bar}</td></tr>'
        )


def _examples(store: Store, rows: Sequence[PhotoRow]) -> str:
    """Photos with their labels and a legend."""
    return "\n".join(_example(store, row) for row in rows) or "<p>None.</p>"


def _example(store: Store, row: PhotoRow) -> str:
    """A photo, or the reason why it is not shown."""
    heading = f"<h3>{_text(row.name)}: {percent(row.confidence)}</h3>"
    try:
        labels = store.read_labels(row.name)
        photo = read_photo(store.photo_path(row))
    except (OSError, ValueError) as error:
        return f'<section class="photo">{heading}<p>{_text(str(error))}</p></section>'

    colors = colors_of_ids(store.classes, max(UNLABELED, int(labels.max())))

    # Pictures are reduced, legends count all pixels.
    photo.thumbnail((_PICTURE_PX, _PICTURE_PX))
    painted = Image.fromarray(colors[_shrunk(labels, photo.size)])
    overlay = Image.blend(photo, painted, 0.5)

    name = _text(row.name)
    figures = html_figure(photo, "photo", f"Photo {name}")
    figures += html_figure(overlay, "labels", f"Labels of {name}")
    legend = "".join(_legend(labels, store.classes))
    return (
        f'<section class="photo">{heading}<div class="pictures">{figures}</div>'
        f'<ul class="legend">{legend}</ul></section>'
    )


def _shrunk(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce a label map to a width and height, by nearest neighbor."""
    width, height = size
    rows = (np.arange(height) * 2 + 1) * labels.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * labels.shape[1] // (2 * width)
    return labels[np.ix_(rows, columns)]


def _legend(labels: np.ndarray, classes: Sequence[LabelClass]) -> Iterable[str]:
    """The classes of a label map with their areas, the largest first."""
    areas = np.bincount(labels.ravel(), minlength=UNLABELED + 1) / labels.size
    entries = [(areas[UNLABELED], "unlabeled", UNLABELED_COLOR)]
    entries += [(areas[each.id], each.name, each.color) for each in classes if each.id < len(areas)]

    for area, name, color in sorted(entries, reverse=True):
        if area:
            yield f"<li>{html_swatch(color)}{_text(name)} {percent(area)}</li>"


def _about_left_out(num_failed: int, tally: LabelTally) -> str:
    """What has no labels."""
    text = f"Photos that could not be labeled: {num_failed:,}."
    if num_failed > _MAX_REASONS:
        text += f" The first {_MAX_REASONS} are listed; manifest.sqlite has all."
    if tally.mean_unlabeled:
        text += f" Of the others, {percent(tally.mean_unlabeled)} of the area is unlabeled."
    return escape(text)


def _failed_row(row: PhotoRow) -> str:
    """A photo that could not be labeled, and why."""
    return f'<tr><th scope="row">{_text(row.source)}</th><td>{_text(row.error or "")}</td></tr>'


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """Everything that the labels depend on, in the words of a reader."""
    settings = record["asked"] | record["made"]
    # Colors and ids stand in classes.txt.
    del settings["classes"]
    return {name.replace("_", " "): value for name, value in settings.items()}


def _text(text: str) -> str:
    """Text that is safe in HTML, also of names that are not UTF-8."""
    return escape(escape_bytes(text))
