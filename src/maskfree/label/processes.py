"""The processes that share the photos of a data set: one, or those of torchrun on one machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from maskfree import run_dir
from maskfree.config.extras import need

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Made = TypeVar("Made")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    fabric: Fabric | None = None
    """Connects several processes; None for a single one."""

    @property
    def rank(self) -> int:
        """Number of this process.

        Returns:
            The number; 0 for the first one.
        """
        return self.fabric.global_rank if self.fabric else 0

    @property
    def world(self) -> int:
        """Number of processes.

        Returns:
            At least 1.
        """
        return self.fabric.world_size if self.fabric else 1

    def device(self, asked: str) -> str:
        """Device of this process's network.

        Args:
            asked: Device that was asked for.

        Returns:
            The same; with several processes the one of its own.
        """
        return str(self.fabric.device) if self.fabric else asked

    @contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Lock the folder for the processes of this run.

        Args:
            folder: Folder of the data set; created if missing.

        Yields:
            Nothing, while the folder is locked.

        Raises:
            OSError: Another run holds the folder, or it cannot be written.
        """
        if self.fabric is None:
            with run_dir.held(folder):
                yield
            return

        from maskfree.distributed import only_run

        with only_run(self.fabric, folder):
            yield

    def of_first(self, make: Callable[[], Made]) -> Made:
        """Call a function in the first process while the others wait; every process must enter.

        Args:
            make: The function.

        Returns:
            What it returned, in every process.

        Raises:
            ValueError: The function raised it; raised in all processes alike.
            OSError: Likewise.
        """
        if self.fabric is None:
            return make()

        from maskfree.distributed import after_first

        made: list[Made] = []
        if self.rank == 0:
            after_first(self.fabric, lambda: made.append(make()))
        else:
            after_first(self.fabric, lambda: None)
        return self.fabric.broadcast(made)[0]


def launch_processes(device: str) -> Processes:
    """Join the processes that torchrun started, if it did.

    Args:
        device: Device that was asked for.

    Returns:
        This process among them.

    Raises:
        ValueError: They are on several machines, were not started by torchrun, or the package that
            connects them is not installed.
    """
    world, here = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "")
    if not here:
        if run_dir.process_rank():
            raise ValueError("several processes of `maskfree label` are started by torchrun")
        return Processes()
    if world == "1":
        return Processes()
    if world != here:
        # SQLite's locks do not reach other machines.
        raise ValueError(
            "the processes of `maskfree label` run on one machine: give each machine its own "
            "photos and --out"
        )

    need("sharing photos between processes", "train", modules=("lightning_fabric",))
    from maskfree.distributed import launch

    return Processes(launch(device))
