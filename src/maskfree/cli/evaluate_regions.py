"""The `maskfree evaluate regions` command: unsupervised regions against human segmentations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory
from maskfree.progress import Progress
from maskfree.regions.region_maps import SegmentConfig


def regions(
    folder: Positional[Path],
    config: Annotated[SegmentConfig, OmitArgPrefixes] = SegmentConfig(),  # noqa: B008 - frozen
    photos: int | None = None,
    every_kind: bool = False,
    results: Path = Path("results"),
    quiet: bool = False,
) -> int:
    """Evaluate unsupervised regions on BSDS500 against human segmentations.

    The measures are the boundary F-score and the covering, over a sweep of one setting.

    Args:
        folder: Folder of BSDS500, with images/*.jpg and groundTruth/*.mat.
        config: Settings of the segmentation into regions.
        photos: Number of photos to use, spread evenly over the folder; all if not given.
        every_kind: Evaluate contours, slic and felzenszwalb, each with the same settings.
        results: Output folder for segments-KIND.json.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree.evaluation.regions import content_of, find_photos, measure
    from maskfree.regions.region_maps import check_installed

    check_installed(config)
    keep_freed_memory()
    pairs = find_photos(folder, photos)

    kinds: tuple[Literal["contours", "slic", "felzenszwalb"], ...] = (config.kind,)
    if every_kind:
        kinds = ("contours", "slic", "felzenszwalb")

    rows = []
    for kind in kinds:
        settings = replace(config, kind=kind)
        measured = measure(pairs, settings, Progress(quiet))
        rows.append((settings, measured))

        # Written after each kind, so that an interruption keeps those that are complete.
        _write(content_of(measured, settings, len(pairs)), _command(settings, photos), results)

    _print(rows, len(pairs))
    return 0


def _write(content: dict[str, Any], command: str, results: Path) -> None:
    """Write the results of one kind with the command, date, versions and machine."""
    from datetime import UTC, datetime

    import torch

    from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json

    now = datetime.now(UTC).isoformat(timespec="seconds")
    circumstances = {"versions": versions(), "machine": machine(torch.get_num_threads())}
    whole = {"format": FORMAT, **content, "command": command, "date": now, **circumstances}
    write_json(whole, results / f"segments-{content['kind']}.json")


def _command(config: SegmentConfig, photos: int | None) -> str:
    """Command that reproduces one kind beside the data set; weight paths lose their folder."""
    from dataclasses import fields

    words = ["maskfree", "evaluate", "regions", "bsds500", "--kind", config.kind]

    # Only settings that differ from their defaults.
    for field in fields(SegmentConfig):
        value = getattr(config, field.name)
        if field.name == "kind" or value == field.default:
            continue
        if field.name == "detector":
            value = f"dexined:{Path(value.partition(':')[2]).name}"
        words += [f"--{field.name.replace('_', '-')}", str(value)]

    if photos:
        words += ["--photos", str(photos)]
    return shlex.join(words)


def _print(rows: Sequence[tuple[SegmentConfig, Any]], num_photos: int) -> None:
    """Print a table of the scores, and the speed of each kind."""
    from rich.table import Table

    table = Table(
        "kind",
        "F (ODS)",
        "F (OIS)",
        "precision",
        "recall",
        "covering (ODS)",
        "covering (OIS)",
        "at",
    )

    # Two rows for each kind: the sweep, and the region maps that the settings give.
    for config, measured in rows:
        for name, found in ((config.kind, measured.swept), (f"{config.kind}, maps", measured.maps)):
            values = (found.boundary_ods, found.boundary_ois, found.precision, found.recall)
            values += (found.covering_ods, found.covering_ois)
            table.add_row(
                name, *(f"{value:.3f}" for value in values), f"{found.boundary_setting:g}"
            )

    console = Console(highlight=False)
    console.print(table)
    for config, measured in rows:
        console.print(
            f"{config.kind}: {num_photos} photos, {measured.mean_regions:.1f} regions each by the "
            f"rule, {measured.seconds_per_photo:.2f} s a photo"
        )
