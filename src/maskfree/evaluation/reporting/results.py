"""Results rows: a measured score with everything that it depends on, one JSON file each."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maskfree.files.atomic import read_json, replace_text

# Version of the file format; files of other versions are not read.
FORMAT = 2
# Packages whose version may change a score.
PACKAGES = ("maskfree", "torch", "transformers", "numpy", "Pillow")


@dataclass(frozen=True)
class Row:
    """One run of one protocol on one benchmark.

    Scores lie in [0, 1] and are None where there was nothing to count.
    """

    benchmark: str
    """Name of the benchmark."""
    num_photos: int
    """Number of photos."""
    files_sha256: str
    """Hash of the photos' paths, one per line."""
    names_file: str
    """File with the class names."""
    names_sha256: str
    """Hash of the class names."""
    protocol_name: str
    """A key of `named_protocols.PROTOCOLS`, or "custom"."""
    protocol: dict[str, Any]
    """All settings of the protocol, see `protocol.record`."""
    model: str
    """Name of the model."""
    weights_sha256: str
    """Hash of the model's weights."""
    mean_iou: float | None
    """Mean IoU over the scored classes."""
    pixel_accuracy: float | None
    """Share of the counted pixels that are correct."""
    mean_accuracy: float | None
    """Mean over the scored classes of the share of their pixels that are correct."""
    frequency_weighted_iou: float | None
    """Mean IoU weighted by the number of true pixels of each class."""
    boundary_f: float | None
    """Boundary F-score, averaged over classes; None if not measured."""
    iou: dict[str, float | None]
    """IoU by class name; "background" is last under a background rule."""
    parts: dict[str, float | None]
    """Mean IoU of parts of the classes (unseen, seen, their harmonic mean and others) and of halves
    of the photos, whose pixel accuracy ends in "accuracy"."""
    confusions: list[list[Any]]
    """Largest confusions: true class, predicted class, share of all counted pixels."""
    seconds_per_photo: float
    """Time from the decoded photo to its label map."""
    command: str
    """Command that started the run."""
    date: str
    """UTC time of the run, in ISO 8601."""
    versions: dict[str, str]
    """Versions of Python and of `PACKAGES`."""
    machine: dict[str, Any]
    """Processor, threads and device of the run."""
    reliability: dict[str, Any] | None = None
    """Expected calibration error "ece" of the pixels' confidence, "temperature" of the softmax, and
    "bins": share of the counted pixels, mean confidence and accuracy, None for an empty one.
    None if not measured, as in rows of before there were confidences."""

    def __repr__(self) -> str:
        """Return a single line without settings and scores by class."""
        return (
            f"Row({self.model!r}, {self.benchmark!r}, protocol={self.protocol_name!r}, "
            f"num_photos={self.num_photos}, mean_iou={self.mean_iou})"
        )

    @property
    def stem(self) -> str:
        """File name without suffix.

        Returns:
            Benchmark, model, protocol and a short hash of the protocol and the photos.
        """
        settings = json.dumps([self.protocol, self.files_sha256], sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:6]

        # A list of words is too long for a file name.
        rule = str(self.protocol["background"])
        if rule.startswith("words"):
            rule = "words"
        parts = (
            self.benchmark,
            self.model,
            self.protocol_name,
            self.protocol["names"],
            rule,
            digest,
        )
        return "-".join(re.sub(r"[^a-zA-Z0-9.]+", "-", str(part)).strip("-") for part in parts)


def write_row(row: Row, folder: Path) -> Path:
    """Write a row to a file named after the run, replacing an older run of the same settings.

    Args:
        row: Row to write.
        folder: Folder to write to.

    Returns:
        Path of the file.
    """
    return write_json({"format": FORMAT, **asdict(row)}, folder / f"{row.stem}.json")


def write_sweep(rows: Sequence[Row], folder: Path) -> Path:
    """Write the rows of a threshold sweep to one file.

    The file is not read as a results row, since no threshold of a sweep is selected.

    Args:
        rows: Rows of the sweep, at least one.
        folder: Folder to write to.

    Returns:
        Path of the file.
    """
    content = {
        "format": FORMAT,
        "kind": "sweep",
        "command": rows[0].command,
        "rows": [asdict(row) for row in rows],
    }

    # The file name says sweep in place of a threshold.
    without_rule = replace(rows[0], protocol=rows[0].protocol | {"background": "sweep"})
    return write_json(content, folder / f"{without_rule.stem}.json")


def read_row(path: Path) -> Row:
    """Read a row from a file.

    Args:
        path: JSON file of `write_row`.

    Returns:
        The row.

    Raises:
        ValueError: The file is not a row of this format.
        OSError: The file cannot be read.
    """
    try:
        content = {"reliability": None} | read_json(path)
        if content.pop("format") != FORMAT or set(content) != {f.name for f in fields(Row)}:
            raise ValueError("other fields than this version's")

        return Row(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no results row of format {FORMAT}: {error!r}") from error


def write_json(content: Any, path: Path) -> Path:
    """Write JSON to a file atomically.

    Args:
        content: JSON-serializable content, without NaN.
        path: File to write, replaced if it exists.

    Returns:
        `path`.
    """
    replace_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect scores.

    Returns:
        Version by package name.
    """
    return {"python": platform.python_version()} | {
        package: version(package) for package in PACKAGES
    }


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Describe the machine of a run.

    Args:
        threads: Number of threads used.
        device: Name of the torch device.

    Returns:
        Processor, number of cores, threads and device.
    """
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads, "device": device}


def cpu_model() -> str:
    """Return the name of the processor.

    Returns:
        Name that Linux gives, otherwise the machine type that Python knows.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []

    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def number(value: float) -> float | None:
    """Replace NaN by None, since JSON has no NaN.

    Args:
        value: Any float.

    Returns:
        The value, or None for NaN.
    """
    return None if math.isnan(value) else value
