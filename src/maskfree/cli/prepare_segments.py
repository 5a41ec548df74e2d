"""The `maskfree prepare segments` command: unsupervised segmentation of photos into regions."""

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
    """Segment photos into regions without labels, and write one PNG of region numbers per photo.

    After an interruption the same command resumes the run: existing maps are kept.

    Args:
        photos: Folders of photos, or WebDataset shards: files, folders, globs, or brace expressions
            such as train-{000..005}.tar.
        out: Output folder of the region maps, NAME.png for the photo NAME.jpg; created if it does
            not exist.
        config: Settings of the segmentation into regions.
        workers: Number of processes; each segments one photo at a time.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree.data.cache.region_preparation import SegmentPreparation
    from maskfree.regions.region_maps import check_installed, region_map

    if workers < 1:
        raise ValueError(f"--workers {workers}: at least 1 process is needed")
    # Packages that the chosen method needs.
    check_installed(config)

    work = SegmentPreparation(photos, out, asdict(config), workers)
    summary = work.run(partial(region_map, config=config), Progress(quiet))

    # A run that found all maps in place has no speed to report.
    counts, speed = summary["counts"], summary["photos_per_second"]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{counts['photos']} photos: {counts['made']} maps made, {counts['kept']} were there "
        f"-> {out}"
    )
    if counts["broken"]:
        console.print(f"  broken, left out: {counts['broken']}")
    if speed:
        console.print(
            f"  {speed} photos per second with {workers} processes, {summary['mean_regions']} "
            "regions each"
        )
    return 0
