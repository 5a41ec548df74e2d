"""Build an entity index: process each shard into a part, then merge the parts.

Finished parts are kept: an interrupted run resumes with the next shard and gives the same index.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maskfree import run_dir
from maskfree.data.entities.index import SUMMARY
from maskfree.data.entities.merging import merge
from maskfree.data.entities.shard_parts import Finder, NounsOf, count_nouns, write_part
from maskfree.data.process_map import process_map
from maskfree.files.atomic import read_json
from maskfree.files.leftovers import writing
from maskfree.progress import Watch

# Largest file of a shard's nouns, and largest summary of an index.
_MAX_COUNTS_BYTES = 2**28


@dataclass(frozen=True)
class Preparation:
    """A job that builds one index."""

    shards: tuple[Path, ...]
    """Shards on disk."""
    out: Path
    """Folder of the finished index."""
    workers: int = 2
    """Number of processes."""

    @property
    def unfinished(self) -> Path:
        """Folder beside the output that holds the parts until the index is complete.

        Returns:
            Its path.
        """
        return _unfinished(self.out)

    def start(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Create the folder for the parts, or resume with an existing one.

        Args:
            settings: Settings that the index depends on.
            resume: Whether to go on with an unfinished run.

        Raises:
            FileExistsError: The output exists, or an unfinished run exists and `resume` is False.
            ValueError: The unfinished run has other settings or shards, or two shards share a name.
            BlockingIOError: Another process is using the folder.
        """
        run_dir.refuse_if_held(self.unfinished)
        # The index identifies shards by name, so names must be unique.
        names = Counter(shard.name for shard in self.shards)
        for name, number in names.items():
            if number > 1:
                raise ValueError(
                    f"shard {name!r} is given {number} times: an index knows shards by their names"
                )

        if self.out.exists():
            raise FileExistsError(f"{str(self.out)!r} exists: give another folder, or remove it")

        if self.unfinished.exists() and not resume:
            raise FileExistsError(
                f"{str(self.unfinished)!r} is an unfinished run: go on with --resume, or remove it"
            )

        self.unfinished.mkdir(parents=True, exist_ok=True)
        run_dir.check_record(
            self.unfinished / "settings.json", {"shards": sorted(names), **settings}
        )

    def count_nouns(self, nouns_of: NounsOf, watch: Watch) -> tuple[Counter[str], Counter[str]]:
        """Count the nouns of all captions.

        Args:
            nouns_of: Finds the nouns of a caption.
            watch: Wraps the iteration to show progress.

        Returns:
            For each noun the number of pairs that contain it, and of pairs that use it as a noun.
        """
        jobs = [(shard, self.unfinished / f"{shard.name}.nouns.json") for shard in self.shards]
        self._run(partial(count_nouns, nouns_of=nouns_of), jobs, watch, "nouns")

        pairs, as_nouns = Counter(), Counter()
        for _, path in jobs:
            for noun, (number, firm) in read_json(path, _MAX_COUNTS_BYTES).items():
                pairs[noun] += number
                as_nouns[noun] += firm
        return pairs, as_nouns

    def find(self, finder: Finder, watch: Watch) -> None:
        """Process all shards into parts.

        Args:
            finder: Finds the entities in captions.
            watch: Wraps the iteration to show progress.
        """
        jobs = [(shard, self._part(shard)) for shard in self.shards]
        self._run(partial(write_part, finder=finder), jobs, watch, "entities")

    def finish(self, finder: Finder, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the parts and move the index to the output folder.

        Args:
            finder: The finder that the parts were made with.
            settings: Settings to record in the summary.

        Returns:
            The summary of the index.

        Raises:
            ValueError: No pair mentions an entity.
        """
        parts = [self._part(shard) for shard in self.shards]
        folder = self.unfinished / "index"
        # An earlier run may have been interrupted while merging.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

        with writing(folder):
            summary = merge(parts, folder, finder.entities, finder.lines, settings)

        # Renaming makes the index appear all at once.
        folder.rename(self.out)
        shutil.rmtree(self.unfinished)
        return summary

    def _part(self, shard: Path) -> Path:
        """File of a shard's pairs."""
        return self.unfinished / f"{shard.name}.pairs.parquet"

    def _run(
        self,
        work: Callable[[tuple[Path, Path]], None],
        jobs: Sequence[Any],
        watch: Watch,
        name: str,
    ) -> None:
        """Run the jobs in several processes and show progress."""
        with process_map(min(self.workers, len(jobs))) as run:
            for _ in watch(run(work, jobs), name, len(jobs)):
                pass


def finished(out: Path) -> dict[str, Any] | None:
    """Read the summary of a finished index.

    Also removes the parts of a run that was killed after it finished the index.

    Args:
        out: Folder of the index.

    Returns:
        The summary; None if there is no index.
    """
    path = out / SUMMARY
    if not path.is_file():
        return None
    shutil.rmtree(_unfinished(out), ignore_errors=True)
    return read_json(path, _MAX_COUNTS_BYTES)


def _unfinished(out: Path) -> Path:
    """Folder of the parts."""
    return out.with_name(out.name + ".unfinished")
