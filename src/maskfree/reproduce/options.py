"""What all studies are asked: data, seeds, folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudyOptions:
    """What is run, and where things lie."""

    data: Path
    """Folder with coco-mini, camvid and flickr8k."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs; each has a file of results of its own."""
    out: Path = Path("runs/reproduce")
    """Folder for the runs; what lies there is used."""
    results: Path = Path("results")
    """Folder for the rows and pictures."""
    steps: int = 60
    """Of each training."""
    only: tuple[str, ...] = ()
    """Variants to run, by the names that the tables give them; all if empty."""
    device: str = "cpu"
    """Where models are measured: cpu, cuda or cuda:N. Training takes what is there."""

    def shards(self) -> tuple[str, ...]:
        """Return where the training photos of Flickr8k are."""
        return (str(self.data / "flickr8k" / "train-{000..005}.tar"),)
