"""`maskfree evaluate-segments`: regions made without labels against those that people drew."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.progress import Progress
from maskfree.regions.region_maps import SegmentConfig


def evaluate_segments(
    folder: Positional[Path],
    config: Annotated[SegmentConfig, OmitArgPrefixes] = SegmentConfig(),  # noqa: B008 - frozen
    photos: int | None = None,
    every_kind: bool = False,
    results: Path = Path("results"),
    quiet: bool = False,
) -> int:
    """Measure regions on BSDS500: boundary F and covering against human segmentations, over a sweep of one setting.

    Args:
        folder: Folder of BSDS500, with images/*.jpg and groundTruth/*.mat.
        config: How photos are cut.
        photos: So many photos, spread evenly over the folder; all if not given.
        every_kind: Measure contours, slic and felzenszwalb, each with the same settings.
        results: Folder for segments-KIND.json.
        quiet: Do not show how far it has come.
    """
    from maskfree.evaluation import regions
    from maskfree.regions.region_maps import check_installed

    check_installed(config)
    pairs = regions.find_photos(folder, photos)
    kinds: tuple[Literal["contours", "slic", "felzenszwalb"], ...] = (
        "contours",
        "slic",
        "felzenszwalb",
    )
    rows = []
    for kind in kinds if every_kind else (config.kind,):
        settings = replace(config, kind=kind)
        measured = regions.measure(pairs, settings, Progress(quiet))
        rows.append((settings, measured))
        _write(
            regions.content_of(measured, settings, len(pairs)), _command(settings, photos), results
        )
    _print(rows, len(pairs))
    return 0


def _write(content: dict[str, Any], command: str, results: Path) -> None:
    from datetime import UTC, datetime

    import torch

    from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json

    now = datetime.now(UTC).isoformat(timespec="seconds")
    circumstances = {"versions": versions(), "machine": machine(torch.get_num_threads())}
    whole = {"format": FORMAT, **content, "command": command, "date": now, **circumstances}
    write_json(whole, results / f"segments-{content['kind']}.json")


def _command(config: SegmentConfig, photos: int | None) -> str:
    """The command for one kind, as typed beside the data set; a detector's weights lose their folder."""
    from dataclasses import fields

    words = ["maskfree", "evaluate-segments", "bsds500", "--kind", config.kind]
    for field in fields(SegmentConfig):
        value = getattr(config, field.name)
        if field.name != "kind" and value != field.default:
            value = (
                f"dexined:{Path(value.partition(':')[2]).name}"
                if field.name == "detector"
                else value
            )
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return shlex.join(words + (["--photos", str(photos)] if photos else []))


def _print(rows: Sequence[tuple[SegmentConfig, Any]], num_photos: int) -> None:
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
            f"{config.kind}: {num_photos} photos, {measured.mean_regions:.1f} regions each by the rule, "
            f"{measured.seconds_per_photo:.2f} s a photo"
        )
