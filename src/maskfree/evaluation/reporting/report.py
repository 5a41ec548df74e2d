"""HTML report of an evaluation: scores, classes, confusions, and the best and worst photos."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import Float64

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, Benchmark
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting.reliability_diagram import reliability_diagram
from maskfree.evaluation.reporting.report_photos import photo_section
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.zero_shot import EvalResult
from maskfree.files.atomic import replace_text
from maskfree.inference.segmenter import Segmenter
from maskfree.results.page import html_page, percent, settings_rows

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(
    measured: EvalResult,
    prepared_segmenter: Segmenter,
    benchmark: Benchmark,
    samples: Sequence[AnnotatedPhoto],
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
            photo_section(
                prepared_segmenter, samples[i], lookup, float(measured.photos[i]), show_photos
            )
            for i in chosen
        ]
        return "\n".join(sections) or "<p>None.</p>"

    row = measured.row
    title = f"{row.benchmark}: {row.model} by the protocol {row.protocol_name}"
    body = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subject=escape(
            f"{benchmark.title}. {row.num_photos} photos. Model {row.model}, weights "
            f"{row.weights_sha256[:12]}; {row.protocol['names']} names, background "
            f"{row.protocol['background']}."
        ),
        scores=_scores(row),
        num_confusions=len(row.confusions),
        classes=_classes(row),
        confusions="\n".join(_confusion(*pair) for pair in row.confusions),
        about_photos=_about_photos(measured),
        best=shown(best),
        worst=shown(worst),
        protocol=_provenance(row),
        reliability=_reliability(row),
    )

    replace_text(path, html_page(title, body))
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
    if row.reliability is not None:
        figures["calibration error"] = row.reliability["ece"]
    for name, value in row.parts.items():
        is_named = name.startswith("harmonic") or name.endswith("accuracy")
        figures[name if is_named else f"mean IoU, {name}"] = value

    items = []
    for name, value in figures.items():
        items.append(f"<div><dt>{escape(name)}</dt><dd>{percent(value)}</dd></div>")
    return "\n".join(items)


def _reliability(row: Row) -> str:
    """Section with the reliability diagram; empty if it was not measured."""
    if row.reliability is None:
        return ""
    diagram = reliability_diagram(row.reliability, f"{row.model} on {row.benchmark}")
    return (
        '<h2 id="reliability">Reliability</h2>\n'
        "<p>How often pixels of each confidence are right; the expected calibration error is the "
        "mean gap between confidence and accuracy.</p>\n" + diagram
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
            f"{answer} ({percent(share)})"
            for truth, answer, share in row.confusions
            if truth == name
        ]

        bar = ""
        if iou is not None:
            bar = f'<div style="width:{100 * iou:.1f}%"></div>'
        lines.append(
            f'<tr><td class="number">{number}</td><th scope="row">{escape(name)}</th>'
            f'<td class="number">{percent(iou)}</td><td class="bar">{bar}</td>'
            f"<td>{escape(', '.join(taken))}</td></tr>"
        )

    return "\n".join(lines)


def _confusion(truth: str, answer: str, share: float) -> str:
    """HTML row of a confusion."""
    cells = f"<td>{escape(truth)}</td><td>{escape(answer)}</td>"
    return f'<tr>{cells}<td class="number">{percent(share)}</td></tr>'


def _about_photos(measured: EvalResult) -> str:
    """Explanation of the pictures."""
    unknown = int(np.isnan(measured.photos).sum())
    text = (
        "By each photo's own mean IoU, over the classes that its truth or its answer has where the "
        "truth counts. Both have the same colors; the background is left as it is in the photo, "
        "and what does not count is gray."
    )
    if unknown:
        text += f" Photos left out, since nothing in them counts: {unknown}."
    return text


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

    return settings_rows(settings)
