"""Reading results rows from files of any content, such as all files of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskfree.evaluation.reporting.results import FORMAT, Row, read_row
from maskfree.files.atomic import read_json
from maskfree.text.background import Background

# A file with one of these keys is meant to be a results row.
_MARKS = (
    "mean_iou",
    "protocol",
    "iou",
    "weights_sha256",
)
_OTHER = "no row of results"


def read_rows(files: Sequence[Path]) -> tuple[list[Row], dict[str, list[str]]]:
    """Read results rows from files, each file once, and skip files of other kinds.

    Args:
        files: JSON files.

    Returns:
        Rows, and the names of the skipped files by reason.

    Raises:
        ValueError: A file is not JSON, or is meant to be a row of this format and is broken.
        OSError: A file cannot be read.
    """
    rows, skipped = [], {}
    for path in dict.fromkeys(files):
        content = read_json(path)
        reason = _no_row(content)
        if reason:
            skipped.setdefault(reason, []).append(path.name)
        else:
            rows.append(_checked(read_row(path), path))

    return rows, skipped


def _no_row(content: Any) -> str:
    """Reason why a file is not meant to be a row of this format; empty if it is."""
    if not isinstance(content, dict):
        return _OTHER
    if content.keys() & set(_MARKS):
        is_readable = content.get("format") == FORMAT
        return "" if is_readable else f"row of another format than {FORMAT}"
    if content.get("kind") == "sweep":
        return "sweep, not a row"
    return _OTHER


def _checked(row: Row, path: Path) -> Row:
    """Check the fields that a comparison reads."""
    if not (isinstance(row.protocol, dict) and {"names", "background"} <= row.protocol.keys()):
        raise ValueError(
            f"{path} does not say its protocol: it needs at least names and background"
        )

    if not isinstance(row.iou, dict):
        raise ValueError(f"{path}: iou must be a value for each class, not {row.iou!r}")

    try:
        Background.parse(row.protocol["background"])
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error

    # Scores are fractions: a file in percent would rank first.
    for name, value in {
        "mean_iou": row.mean_iou,
        "pixel_accuracy": row.pixel_accuracy,
        **row.iou,
    }.items():
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ValueError(f"{path}: {name} is {value!r}, not a score in [0, 1]")

    return row
