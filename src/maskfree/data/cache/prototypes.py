"""Class prototypes in a file, with class names and a pool of segments for unknown classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from maskfree.files.atomic import replace_bytes
from maskfree.files.tensors import open_safetensors

_TENSORS = ("phrases", "known", "pool")


@dataclass(frozen=True)
class Prototypes:
    """Result of `maskfree prepare prototypes`; all embeddings have unit norm."""

    names: tuple[str, ...]
    """Class names with their synonyms, as in sofa/couch."""
    phrases: Float[Tensor, "p d"]
    """Text embeddings of all names and synonyms, in order."""
    known: Float[Tensor, "k d"]
    """Mean of the teacher's segments that are most similar to each name."""
    pool: Float[Tensor, "m d"]
    """Segments of all photos, in random order."""

    @property
    def synonyms(self) -> tuple[int, ...]:
        """Number of phrases of each class.

        Returns:
            One number per class; they sum to the number of phrases.
        """
        return tuple(len(name.split("/")) for name in self.names)

    def write(self, path: Path) -> None:
        """Write the prototypes atomically.

        Args:
            path: File to write, in the safetensors format.

        Raises:
            OSError: The file cannot be written.
        """
        tensors = {name: getattr(self, name).float().cpu().contiguous() for name in _TENSORS}
        replace_bytes(path, save(tensors, {"names": json.dumps(self.names, ensure_ascii=False)}))

    @classmethod
    def read(cls, path: Path) -> Prototypes:
        """Read prototypes from a file.

        Args:
            path: File that `write` wrote.

        Returns:
            The prototypes.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds no prototypes.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: `maskfree prepare prototypes` makes it")

        try:
            with open_safetensors(path) as file:
                names = tuple(json.loads(file.metadata()["names"]))
                return cls(names, *(file.get_tensor(name) for name in _TENSORS))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no prototypes: {error}") from error

    def unknown(self, count: int, seed: int) -> Float[Tensor, "u d"]:
        """Draw random segments to initialize unknown classes.

        Args:
            count: Number of unknown classes.
            seed: Seed of the draw.

        Returns:
            Embeddings of distinct segments.

        Raises:
            ValueError: There are fewer segments than that.
        """
        if count > len(self.pool):
            raise ValueError(
                f"{count} unknown classes start from as many segments: there are {len(self.pool)}"
            )
        # The global random state is left alone.
        generator = torch.Generator().manual_seed(seed)
        return self.pool[torch.randperm(len(self.pool), generator=generator)[:count]]
