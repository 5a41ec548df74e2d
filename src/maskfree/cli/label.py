"""The command `maskfree label`: label a data set of photos."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import (
    BAD_INPUT,
    Runtime,
    chosen_grouping,
    complain,
    keep_freed_memory,
    note,
    note_few_words,
)
from maskfree.cli.label_outputs import LabelOutput, check_formats, num_photos, write_outputs
from maskfree.config.extras import need
from maskfree.label.config import LabelConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.inference.segmenter import Segmenter
    from maskfree.label.job import Job, LabelCounts
    from maskfree.label.processes import Processes


def label(
    photos: Positional[tuple[str, ...]] = (),
    words: tuple[str, ...] = (),
    model: str = "pocket",
    out: Path = Path("maskfree-labels"),
    config: Annotated[LabelConfig, OmitArgPrefixes] = LabelConfig(),  # noqa: B008 - frozen
    output: Annotated[LabelOutput, OmitArgPrefixes] = LabelOutput(),  # noqa: B008 - frozen
    runtime: Annotated[Runtime, OmitArgPrefixes] = Runtime(),  # noqa: B008 - frozen
    quiet: bool = False,
) -> int:
    """Label a data set: write a label map for each of many photos.

    After an interruption the same command goes on; unchanged photos are not labeled again.

    Args:
        photos: Folders (photos at any depth), globs, photos, text files with a path in each line,
            and shards (.tar). None: only write further outputs of a data set that is labeled.
        words: Class names as for `segment`, or a file of them (.txt or .yaml).
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        out: Folder of the data set: labels/NAME.png, classes.txt, manifest.sqlite, review.txt.
        config: Settings of the labels.
        output: Further outputs.
        runtime: Device, batch size, input resolution and upsampling.
        quiet: Print neither a summary nor progress, only errors.

    Returns:
        Exit status: 0, or 2 if a photo could not be labeled.
    """
    from maskfree.label.manifest import MANIFEST
    from maskfree.label.processes import launch_processes

    # Everything that can be refused is refused before torch is imported, which takes seconds.
    need("labeling a data set", "label")
    runtime.chosen_runtime()
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")
    if words and not photos:
        raise ValueError("no photos were given: they come first, before --words")
    job = None
    if photos:
        job = _job(photos, words, model, out, config, runtime)
        job = replace(job, redo=output.redo)

    check_formats(output.format, out)

    processes = launch_processes(runtime.device)
    with processes.holding(out):
        counts = None
        if job is not None:
            from maskfree.label.run import label_photos

            load = partial(_load, job, model, runtime, processes, quiet)
            watch = Progress(quiet or processes.rank > 0, rate=True)
            counts = label_photos(job, load, processes, watch)
        if processes.rank:
            return 0
        lines = write_outputs(out, output, Progress(quiet))

    if counts is not None:
        lines = [_summary(counts, out), *lines]
    if not quiet:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    if counts is None or not counts.failed:
        return 0

    for reason in counts.reasons:
        note(reason)
    complain(f"{num_photos(counts.failed)} could not be labeled: {out / MANIFEST} tells why")
    return BAD_INPUT


def _job(
    photos: tuple[str, ...],
    words: tuple[str, ...],
    model: str,
    out: Path,
    config: LabelConfig,
    runtime: Runtime,
) -> Job:
    """What is to be done, checked as far as it can be without the model."""
    from maskfree.label.classes import label_classes
    from maskfree.label.job import Job
    from maskfree.label.record import asked_record
    from maskfree.label.store import Store
    from maskfree.label.words_file import read_words
    from maskfree.label.work_list import check_places
    from maskfree.text.background import Background, default_rule

    check_places(photos, out)
    listed = read_words(words)
    asked_rule = config.background or listed.background
    background = Background.parse(asked_rule or default_rule(len(listed.vocabulary.classes)))
    classes = label_classes(listed, bool(background), config.first_id)

    options = {
        "model": model,
        "side_px": runtime.side_px,
        "refine": runtime.refine,
        "grouping": chosen_grouping(runtime.grouping, runtime.regions),
    }
    asked = asked_record(listed, classes, background, config, options)
    return Job(photos, Store(out, classes), config, asked, has_own_background=bool(asked_rule))


def _load(job: Job, model: str, runtime: Runtime, processes: Processes, quiet: bool) -> Segmenter:
    """Load the model and give it the words."""
    keep_freed_memory()
    runtime.apply()
    from maskfree.hub import loading

    loaded = loading.load(model, processes.device(runtime.device))
    inference = loaded.inference.changed(
        side_px=runtime.side_px,
        batch_size=runtime.batch_size,
        refine=runtime.refine,
        grouping=job.asked["grouping"],
    )
    words = ["/".join(synonyms) for synonyms in job.asked["words"]]
    segmenter = loaded.with_inference(inference).with_words(
        words, job.asked["background"], job.config.templates or None
    )
    if not job.has_own_background and not processes.rank and not quiet:
        note_few_words(segmenter.background)
    return segmenter.with_runtime(runtime.chosen_runtime())


def _summary(counts: LabelCounts, out: Path) -> str:
    """One line of what a run did."""
    parts = [f"{num_photos(counts.labeled)} labeled", f"{counts.kept} were there"]
    if counts.failed:
        parts.append(f"{counts.failed} could not be labeled")
    rate = ""
    if counts.labeled:
        rate = f"; {counts.labeled / counts.seconds:.1f} photos/s"
    return f"{', '.join(parts)}{rate} -> {out}"
