"""Precomputed teacher patch features: one file of embeddings per photo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import MapStorage
from maskfree.data.photo_sources import file_stem
from maskfree.files.atomic import escape, replace_bytes
from maskfree.files.tensors import read_safetensors

RECORD = "teacher.json"
_NAME = "embeddings"
_SCALES = "scales"
_SUFFIX = ".safetensors"
# Patches by which a map may differ from its photo, since partly filled patches are left out.
_WHOLE_PATCHES = 2


@dataclass(frozen=True)
class TeacherMaps:
    """A folder of a teacher's patch embeddings, named by the photos' keys.

    Embeddings have unit norm. They are stored in half precision, or as 8-bit integers with one
    scale per patch, in half the room.
    """

    folder: Path
    """Folder of the maps."""

    def path(self, key: str) -> Path:
        """Get the file of a photo's map.

        Args:
            key: Key of the photo.

        Returns:
            The path, whether or not the file exists.
        """
        return self.folder / (escape(file_stem(key)) + _SUFFIX)

    def write(
        self, key: str, embeddings: Float[Tensor, "d hp wp"], storage: MapStorage = "float16"
    ) -> None:
        """Write a photo's map atomically.

        Args:
            key: Key of the photo.
            embeddings: Patch embeddings of unit norm.
            storage: Number format.

        Raises:
            OSError: The file cannot be written.
        """
        # Files store the channels last.
        tensor = embeddings.cpu().movedim(0, -1)
        if storage == "int8":
            tensors = _to_int8(tensor.float())
        else:
            tensors = {_NAME: tensor.half().contiguous()}
        replace_bytes(self.path(key), save(tensors))

    def of(self, key: str, size: tuple[int, int] | None = None) -> Float[Tensor, "d hp wp"]:
        """Read a photo's map.

        Args:
            key: Key of the photo.
            size: Height and width of the photo in pixels, which may have been decoded smaller. If
                given, the shape of the map is checked against it.

        Returns:
            Patch embeddings of unit norm.

        Raises:
            FileNotFoundError: There is no map of the photo.
            ValueError: The file holds no map, or the map of a photo of another shape.
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

            # The photo's size in patches, by the longer side.
            if max(abs(size[0] * scale - rows), abs(size[1] * scale - columns)) > _WHOLE_PATCHES:
                raise ValueError(
                    f"{path} has {columns}x{rows} patches, its photo {size[1]}x{size[0]} px: "
                    "it is another photo's"
                )

        return embeddings

    def all(self) -> Iterator[Float[Tensor, "d hp wp"]]:
        """Read all maps, sorted by file name.

        Yields:
            Patch embeddings of one photo each.

        Raises:
            FileNotFoundError: The folder holds no map.
            ValueError: A file holds no map.
        """
        paths = sorted(self.folder.glob(f"*{_SUFFIX}"))
        if not paths:
            raise FileNotFoundError(
                f"the folder {self.folder} holds no teacher's maps (*{_SUFFIX})"
            )
        yield from map(_read, paths)


def _read(path: Path) -> Float[Tensor, "d hp wp"]:
    """Read the embeddings in a file, channels first."""
    tensors = read_safetensors(path)
    embeddings = tensors.get(_NAME)
    if embeddings is None or embeddings.dim() != 3 or not embeddings.numel():
        raise ValueError(
            f"{path} holds no teacher's map: a tensor {_NAME!r} of rows, columns and channels"
        )

    if not embeddings.is_floating_point():
        scales = tensors.get(_SCALES)
        if scales is None or scales.shape != embeddings.shape[:2]:
            raise ValueError(
                f"{path} holds no teacher's map: integers without a tensor {_SCALES!r} of rows and "
                "columns"
            )
        # Rounding changes the lengths.
        embeddings = F.normalize(embeddings * scales.float()[..., None], dim=-1).half()
    return embeddings.movedim(-1, 0)


def _to_int8(embeddings: Float[Tensor, "hp wp d"]) -> dict[str, Tensor]:
    """8-bit integers and one scale per patch."""
    scales = (embeddings.abs().amax(-1) / 127).half()
    # A patch of zeros has scale 0, and would be divided by it.
    steps = scales.float().where(scales > 0, 1)[..., None]
    rounded = (embeddings / steps).round().clamp(-127, 127).to(torch.int8)
    return {_NAME: rounded.contiguous(), _SCALES: scales.contiguous()}
