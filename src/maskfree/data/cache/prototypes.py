"""Class prototypes in a file, with the names of their classes and a pool of segments for unknown classes."""

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
    """What `maskfree prepare prototypes` finds; all embeddings have unit norm."""

    names: tuple[str, ...]  # with their synonyms: sofa/couch
    phrases: Float[Tensor, "p d"]  # embeddings of all names and synonyms, in order
    known: Float[Tensor, "k d"]  # mean of the teacher's segments that are likest to each name
    pool: Float[Tensor, "m d"]  # segments of all photos, in random order

    @property
    def synonyms(self) -> tuple[int, ...]:
        """Number of phrases of each class."""
        return tuple(len(name.split("/")) for name in self.names)

    def write(self, path: Path) -> None:
        """Write them, all or nothing.

        Raises:
            OSError: the file cannot be written.
        """
        tensors = {name: getattr(self, name).float().cpu().contiguous() for name in _TENSORS}
        replace_bytes(path, save(tensors, {"names": json.dumps(self.names, ensure_ascii=False)}))

    @classmethod
    def read(cls, path: Path) -> Prototypes:
        """Read them back.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no prototypes.
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
        """Draw COUNT segments, where unknown classes start.

        Raises:
            ValueError: there are fewer.
        """
        if count > len(self.pool):
            raise ValueError(
                f"{count} unknown classes start from as many segments: there are {len(self.pool)}"
            )
        generator = torch.Generator().manual_seed(seed)
        return self.pool[torch.randperm(len(self.pool), generator=generator)[:count]]
