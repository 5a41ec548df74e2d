"""`maskfree prepare segments`: the regions of photos, without labels."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.progress import Progress
from maskfree.regions.region_maps import SegmentConfig


def segments(
    photos: Positional[tuple[str, ...]],
    out: Path,
    config: Annotated[SegmentConfig, OmitArgPrefixes] = SegmentConfig(),  # noqa: B008 - frozen
    workers: int = 2,
    quiet: bool = False,
) -> int:
    """Cut each of PHOTOS into regions, and write them to OUT as one PNG a photo; no labels are needed.

    A run that was stopped goes on with the same command: maps that are there stay.

    Args:
        photos: Folders of photos, or WebDataset shards: files, folders, globs, braces as in train-{000..005}.tar.
        out: Folder of the region maps, NAME.png for the photo NAME.jpg; made if need be.
        config: How photos are cut.
        workers: Processes; each cuts one photo at a time.
        quiet: Do not show how far it has come.
    """
    from maskfree.data.cache.region_preparation import SegmentPreparation
    from maskfree.regions.region_maps import check_installed, region_map

    if workers < 1:
        raise ValueError(f"--workers {workers}: at least 1 process is needed")
    check_installed(config)
    work = SegmentPreparation(photos, out, asdict(config), workers)
    summary = work.run(partial(region_map, config=config), Progress(quiet))
    counts, speed = summary["counts"], summary["photos_per_second"]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{counts['photos']} photos: {counts['made']} maps made, {counts['kept']} were there -> {out}"
    )
    if counts["broken"]:
        console.print(f"  broken, left out: {counts['broken']}")
    if speed:
        console.print(
            f"  {speed} photos per second with {workers} processes, {summary['mean_regions']} regions each"
        )
    return 0
