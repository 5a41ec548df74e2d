"""Label the photos of a run: read ahead, segment, write behind; what is done is not done again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from maskfree.inference.photos import OpenedPhoto, PhotoError
from maskfree.inference.pipeline import segment_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.label.job import Job, LabelCounts
from maskfree.label.listing import list_photos
from maskfree.label.manifest import Manifest
from maskfree.label.opening import OpenedRow, open_row
from maskfree.label.photo_row import DONE, FAILED, WAITING
from maskfree.label.processes import Processes
from maskfree.label.record import read_record, refuse_change, settings_hash, write_record
from maskfree.label.threads import ahead, behind
from maskfree.label.work_list import find
from maskfree.progress import Watch, unwatched
from maskfree.results.segmentation import Segmentation
from maskfree.run_dir import differences

# Pixels that wait for the network, and for the disk: about 50 photos of a phone's camera made
# small, or one of its full size.
_AHEAD_PIXELS = 10_000_000
_BEHIND_PIXELS = 5_000_000
# Seconds between looks at what the other processes have done.
_LOOK_EVERY_S = 0.2
# Photos that could not be labeled of which the reasons are listed.
_MAX_REASONS = 10
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
# Inference settings that change no label.
_WITHOUT_EFFECT = ("batch_size",)


def label_photos(
    job: Job,
    load: Callable[[], Segmenter],
    processes: Processes,
    watch: Watch = unwatched,
) -> LabelCounts:
    """Label the photos of a job, in a folder that its processes hold.

    Args:
        job: What is to be done.
        load: Loads the model and gives it the words; called only if a photo waits.
        processes: The processes that share the photos; each calls this function.
        watch: Wraps the results, to show progress.

    Returns:
        Number of photos by outcome, in the first process those of all.

    Raises:
        ValueError: A setting differs from those of an earlier run, there is no photo, or the
            manifest is damaged.
        OSError: A file cannot be written.
    """
    folder = job.store.folder
    before = processes.of_first(lambda: _checked_record(job))
    segmenter, made = None, {}
    if before is not None:
        made = before["made"]

    # Where settings are new, a model that cannot be loaded must leave no record of them.
    if before is None or job.redo or differences(before["asked"], job.asked):
        segmenter = load()
        made = made_record(segmenter)
        processes.of_first(lambda: write_record(folder, job.asked, made))

    settings = settings_hash(job.asked, made)
    run, at_first = processes.of_first(lambda: _listed(job, settings, watch))
    if not sum(at_first.values()):
        raise ValueError(f"there is no photo in {', '.join(job.places)}")

    began = perf_counter()
    if at_first[WAITING]:
        if segmenter is None:
            segmenter = load()
            refuse_change(folder, made, made_record(segmenter))
            began = perf_counter()

        part = -(-at_first[WAITING] // processes.world)
        results = _Results(job, segmenter, settings)
        results.make(run, processes, lambda items: watch(items, "photos", part))

    counts, reasons = at_first, ()
    if processes.rank == 0:
        counts, reasons = _when_all_are_done(job, run, processes.world)
    return LabelCounts(
        labeled=counts[DONE] - at_first[DONE],
        kept=at_first[DONE],
        failed=counts[FAILED],
        reasons=reasons,
        seconds=perf_counter() - began,
    )


def made_record(segmenter: Segmenter) -> dict[str, Any]:
    """What labels depend on beyond what was asked for: the loaded model and its settings.

    Args:
        segmenter: The model with its words.

    Returns:
        Plain values by name.
    """
    inference = asdict(segmenter.inference)
    for name in _WITHOUT_EFFECT:
        del inference[name]

    return {
        "weights_sha256": segmenter.weights_hash,
        "templates": list(segmenter.templates),
        "background_words": ["/".join(words) for words in segmenter.background.words],
        "inference": inference,
        "calibration": asdict(segmenter.calibration),
    }


def _checked_record(job: Job) -> dict[str, Any] | None:
    """Record of an earlier run, whose settings must be those of the job unless all is redone."""
    record = read_record(job.store.folder)
    if record is None:
        # Said before a model is loaded.
        if next(find(job.places, job.store.folder), None) is None:
            raise ValueError(f"there is no photo in {', '.join(job.places)}")
    elif not job.redo:
        refuse_change(job.store.folder, record["asked"], job.asked)
    return record


def _listed(job: Job, settings: str, watch: Watch) -> tuple[int, dict[str, int]]:
    """Enter the photos into the manifest; return the number of the run, and counts by state."""
    with Manifest(job.store.folder) as manifest:
        found = watch(find(job.places, job.store.folder), "looking")
        run = list_photos(found, manifest, job.store, settings, job.redo)
        return run, manifest.count(run)


def _when_all_are_done(job: Job, run: int, world: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """Wait for the other processes; return the counts by state, and why photos failed."""
    with Manifest(job.store.folder) as manifest:
        while (counts := manifest.count(run))[WAITING] and world > 1:
            time.sleep(_LOOK_EVERY_S)
        assert not counts[WAITING], "photos were left waiting"
        return counts, tuple(manifest.reasons(run, _MAX_REASONS))


@dataclass(frozen=True)
class _Outcome:
    """A photo on its way to the disk."""

    opened: OpenedRow
    result: Segmentation | PhotoError
    seconds: float


class _Results:
    """The results of this process's photos, written by a thread behind the network."""

    def __init__(self, job: Job, segmenter: Segmenter, settings: str) -> None:
        self._job, self._segmenter, self._settings = job, segmenter, settings
        # Photos whose results are not made yet, without their pixels.
        self._taken: deque[OpenedRow] = deque()

    def make(
        self,
        run: int,
        processes: Processes,
        watch: Callable[[Iterable[_Outcome]], Iterable[_Outcome]],
    ) -> None:
        """Label this process's part of the photos that wait."""
        folder = self._job.store.folder
        with Manifest(folder) as reading, Manifest(folder) as writing:
            rows = reading.waiting(run, processes.rank, processes.world)
            with (
                behind(lambda item: self._keep(item, writing), _pixels, _BEHIND_PIXELS) as keep,
                ahead(map(open_row, rows), lambda item: item.pixels, _AHEAD_PIXELS) as opened,
            ):
                for outcome in watch(self._outcomes(opened)):
                    keep(outcome)

    def _outcomes(self, opened: Iterator[OpenedRow]) -> Iterator[_Outcome]:
        """Result of each photo, with the time that it took."""
        began, share = perf_counter(), 0.0
        in_chunk = 0

        for result in segment_photos(self._segmenter, self._fed(opened)):
            # The network sees several photos at once, and each gets its share of that time.
            if not in_chunk:
                in_chunk = len(self._taken)
                share = (perf_counter() - began) / in_chunk
                began = perf_counter()

            in_chunk -= 1
            taken = self._taken.popleft()
            own = perf_counter() - began
            if isinstance(result, Segmentation):
                # The pixels are not needed for writing.
                result = replace(result, image=_NO_PIXELS)
            yield _Outcome(taken, result, taken.seconds + share + own)
            began = perf_counter()

    def _fed(self, opened: Iterator[OpenedRow]) -> Iterator[OpenedPhoto | PhotoError]:
        """Photos for the network; what else is known of them is kept until their results come."""
        for item in opened:
            self._taken.append(replace(item, photo=None))
            if item.photo is None:
                yield PhotoError(item.row.source, item.problem)
            else:
                yield item.photo, item.row.name

    def _keep(self, outcome: _Outcome, manifest: Manifest) -> None:
        """Write a result and its row, or the reason why there is none."""
        opened, result = outcome.opened, outcome.result
        row = opened.row
        if isinstance(result, PhotoError):
            self._fail(opened, result.reason, manifest)
            return

        config = self._job.config
        try:
            values = self._job.store.write(
                row, result, opened.content, config.min_area, config.abstain
            )
        except FileExistsError as error:
            self._fail(opened, str(error), manifest)
            return

        values |= {"sha256": opened.sha256, "seconds": outcome.seconds, "error": None}
        manifest.change(row.id, state=DONE, settings=self._settings, **values)

    def _fail(self, opened: OpenedRow, reason: str, manifest: Manifest) -> None:
        """Record why a photo has no labels."""
        manifest.change(opened.row.id, state=FAILED, settings=self._settings, error=reason)


def _pixels(outcome: _Outcome) -> int:
    """Number of pixels that an outcome holds."""
    if isinstance(outcome.result, PhotoError):
        return 0
    return outcome.result.labels.size
