"""Rows of results: a measured number together with everything that it depends on, one JSON file each."""

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

FORMAT = 2
PACKAGES = ("maskfree", "torch", "transformers", "numpy", "Pillow")


@dataclass(frozen=True)
class Row:
    """One run of one protocol on one benchmark. Scores lie in [0, 1]; None where there was nothing to count."""

    benchmark: str
    num_photos: int
    files_sha256: str  # of the photos' paths, a line each
    names_file: str
    names_sha256: str
    protocol_name: str  # a key of `protocol.PROTOCOLS`, or "custom"
    protocol: dict[str, Any]  # the fields of `protocol.Protocol`, all of them spelled out
    model: str
    weights_sha256: str
    mean_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    frequency_weighted_iou: float | None
    boundary_f: float | None  # mean over classes; None if it was not measured
    iou: dict[
        str, float | None
    ]  # by class, in its plain name; with a background rule the last one is "background"
    parts: dict[
        str, float | None
    ]  # mean IoU of parts of the classes: unseen, seen, their harmonic mean, ...
    confusions: list[
        list[Any]
    ]  # the largest: true class, predicted class, share of all pixels that count
    seconds_per_photo: float  # from the decoded photo to its label map
    command: str
    date: str  # UTC, ISO 8601
    versions: dict[str, str]
    machine: dict[str, Any]

    @property
    def stem(self) -> str:
        """File name without suffix: what ran, and a short hash of the protocol and the photos."""
        settings = json.dumps([self.protocol, self.files_sha256], sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:6]
        rule = str(self.protocol["background"])
        rule = rule.partition(":")[0] if rule.startswith("words") else rule
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
    """Write a row into FOLDER under a name made of what ran; an older run of the same is replaced."""
    return write_json({"format": FORMAT, **asdict(row)}, folder / f"{row.stem}.json")


def write_sweep(rows: Sequence[Row], folder: Path) -> Path:
    """Write the rows of a sweep over thresholds into one file of FOLDER; none of them stands for the model."""
    content = {
        "format": FORMAT,
        "kind": "sweep",
        "command": rows[0].command,
        "rows": [asdict(row) for row in rows],
    }
    without_rule = replace(rows[0], protocol=rows[0].protocol | {"background": "sweep"})
    return write_json(content, folder / f"{without_rule.stem}.json")


def read_row(path: Path) -> Row:
    """Read a row back.

    Raises:
        ValueError: the file is no row of this format.
    """
    try:
        content = read_json(path)
        if content.pop("format") != FORMAT or set(content) != {f.name for f in fields(Row)}:
            raise ValueError("other fields than this version's")
        return Row(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no results row of format {FORMAT}: {error!r}") from error


def write_json(content: Any, path: Path) -> Path:
    """Write CONTENT to PATH in one step."""
    replace_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {
        package: version(package) for package in PACKAGES
    }


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Name what ran: processor, its cores, threads used, device."""
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": threads, "device": device}


def cpu_model() -> str:
    """Processor name as Linux gives it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def number(value: float) -> float | None:
    """JSON has no NaN: None stands for it."""
    return None if math.isnan(value) else value
