"""What a teacher sees in photos, kept in a folder: a file for each photo with the embeddings of its patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from maskfree.data.photo_sources import file_stem
from maskfree.files.atomic import escape, replace_bytes
from maskfree.files.tensors import read_safetensors

RECORD = "teacher.json"
_NAME = "embeddings"
_SUFFIX = ".safetensors"
_WHOLE_PATCHES = 2  # by which a map may differ from its photo, since it leaves out patches that the photo fills in part


@dataclass(frozen=True)
class TeacherMaps:
    """A folder of a teacher's patch embeddings, in half precision, unit norm; files are named by the photos' keys."""

    folder: Path

    def path(self, key: str) -> Path:
        """Return where the map of the photo with this KEY is, or would be."""
        return self.folder / (escape(file_stem(key)) + _SUFFIX)

    def write(self, key: str, embeddings: Float[Tensor, "d hp wp"]) -> None:
        """Write a photo's map, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        tensor = embeddings.to("cpu", torch.float16).movedim(0, -1).contiguous()
        replace_bytes(self.path(key), save({_NAME: tensor}))

    def of(self, key: str, size: tuple[int, int] | None = None) -> Float[Tensor, "d hp wp"]:
        """Read the map of the photo with this KEY, whose height and width are SIZE, perhaps decoded smaller.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file holds no such map, or that of a photo of another shape.
        """
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: `maskfree prepare teacher` makes one of each photo"
            )
        embeddings = _read(path)
        if size is not None:
            rows, columns = embeddings.shape[1:]
            scale = max(rows, columns) / max(size)
            if max(abs(size[0] * scale - rows), abs(size[1] * scale - columns)) > _WHOLE_PATCHES:
                raise ValueError(
                    f"{path} has {columns}x{rows} patches, its photo {size[1]}x{size[0]} px: it is another photo's"
                )
        return embeddings

    def all(self) -> Iterator[Float[Tensor, "d hp wp"]]:
        """Read all maps, in the order of their names.

        Raises:
            FileNotFoundError: the folder holds none.
            ValueError: a file holds no map.
        """
        paths = sorted(self.folder.glob(f"*{_SUFFIX}"))
        if not paths:
            raise FileNotFoundError(
                f"the folder {self.folder} holds no teacher's maps (*{_SUFFIX})"
            )
        yield from map(_read, paths)


def _read(path: Path) -> Float[Tensor, "d hp wp"]:
    embeddings = read_safetensors(path).get(_NAME)
    if embeddings is None or embeddings.dim() != 3 or not embeddings.numel():
        raise ValueError(
            f"{path} holds no teacher's map: a tensor {_NAME!r} of rows, columns and channels"
        )
    return embeddings.movedim(-1, 0)
