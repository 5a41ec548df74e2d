"""How labeled data sets lie on disk: which photos there are, and how the truth map of each is read.

A path is written with gaps: in `images/{name}.{suffix}` each gap stands for what differs between the photos. The paths
of the truth maps use the same gaps.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int16, Int32, UInt8

from maskfree.data.benchmarks.label_ids import IGNORE, NOTHING, identity
from maskfree.data.decoding import picture_size
from maskfree.data.id_maps import read_ids
from maskfree.data.photo_folders import only_photos
from maskfree.files.atomic import read_text

_GAP = re.compile(r"{(\w+)}")
_MAT_NAME = "LabelMap"
_WRONG = -2  # in a table of ids: a value that stands for nothing


@dataclass(frozen=True)
class LabeledPhoto:
    """One labeled photo; `read_truth` decodes its truth map when it is needed."""

    key: str  # the photo's path under the root
    photo: Path
    read_truth: Callable[[], UInt8[np.ndarray, "h w"]]


class Layout(ABC):
    """How a data set lies on disk."""

    @abstractmethod
    def describe(self) -> str:
        """Say in one line what must lie under the root."""

    @abstractmethod
    def missing(self, root: Path) -> Path | None:
        """Return the first folder or file under ROOT without which nothing can be read; None: all are there."""

    @abstractmethod
    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos' paths under ROOT in a fixed order; every photo and truth map is there, none is opened.

        Raises:
            ValueError, OSError: a file is missing, or cannot be read as a list of photos.
        """

    @abstractmethod
    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[LabeledPhoto, ...]:
        """List the labeled photos under ROOT as `photos` does, having checked that the sizes fit together.

        CLASSES name the ids; pixels of none of them get NOTHING.

        Raises:
            ValueError, OSError: a file is missing, or does not fit the others.
        """


@dataclass(frozen=True)
class Truth:
    """Where the truth maps lie, and what their values mean."""

    path: str = "labels/{name}.png"  # an index PNG, or a .mat file with a `LabelMap`
    ids: Mapping[int, int] | None = (
        None  # value -> class id, NOTHING or IGNORE; None: the values are class ids
    )


@dataclass(frozen=True)
class IndexMaps(Layout):
    """Photos, and a map of values for each; of several places or kinds the first that is there is read."""

    photo_paths: tuple[str, ...] = ("images/{name}.{suffix}",)
    truths: tuple[Truth, ...] = (Truth(),)
    lists: tuple[
        str, ...
    ] = ()  # files that list the photos' names, a line each; none: all photos that are there
    legend: str | None = (
        None  # a file "value: name" that some copies have; it must not contradict `legend_names`
    )
    legend_names: Mapping[str, str] | None = None

    def describe(self) -> str:
        """Say in one line what must lie under the root."""
        kinds = [" or ".join(_GAP.sub("*", path) for path in kind) for kind in self._kinds()]
        return " and ".join(f"({kind})" if " or " in kind else kind for kind in kinds)

    def missing(self, root: Path) -> Path | None:
        """Return the first folder or file under ROOT without which nothing can be read."""
        for kind in self._kinds():
            if not any(_fixed_part(root, path).exists() for path in kind):
                return _fixed_part(root, kind[0])
        return None

    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos, by their names or in the order of the list."""
        return tuple(path for path, _ in self._pairs(root)[0])

    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[LabeledPhoto, ...]:
        """List the photos, each with its map."""
        pairs, truth = self._pairs(root)
        self._check_legend(root)
        table = _table(truth.ids, len(classes), nothing)
        samples = []
        for path, labels in pairs:
            check_size(root / path, _read_size(labels), f"{labels.name} is")
            samples.append(LabeledPhoto(path, root / path, partial(_read, labels, table)))
        return tuple(samples)

    def _kinds(self) -> list[tuple[str, ...]]:
        """Paths of each kind of file that is needed, alternatives together."""
        truths = tuple(truth.path for truth in self.truths)
        return [kind for kind in (self.photo_paths, truths, self.lists) if kind]

    def _pairs(self, root: Path) -> tuple[list[tuple[str, Path]], Truth]:
        """Return photos with their truth maps, and the kind of truth that they have."""
        if absent := self.missing(root):
            raise FileNotFoundError(f"{absent} is missing")
        photo_path = next(path for path in self.photo_paths if _fixed_part(root, path).exists())
        gaps = self._gaps(root, photo_path)
        truth = next(
            (t for t in self.truths if (root / t.path.format(**gaps[0])).exists()), self.truths[0]
        )
        pairs = [
            (photo_path.format(**gap), existing(root / truth.path.format(**gap))) for gap in gaps
        ]
        for path, _ in pairs:
            existing(root / path)
        return pairs, truth

    def _gaps(self, root: Path, photo_path: str) -> list[dict[str, str]]:
        """What fills the gaps of the paths, photo by photo."""
        if self.lists:
            path = next(root / name for name in self.lists if (root / name).exists())
            names = read_text(path).split()
            if not names:
                raise ValueError(f"{path} names no photo")
            _check_names(names, path)
            return [{"name": name} for name in names]
        literal = _GAP.split(photo_path)  # text, gap, text, gap, ..., text
        pattern = re.compile(
            "".join(f"(?P<{s}>[^/]+)" if i % 2 else re.escape(s) for i, s in enumerate(literal))
        )
        found = sorted(only_photos(root.glob(_GAP.sub("*", photo_path)), root))
        if not found:
            raise ValueError(f"{_fixed_part(root, photo_path)} holds no photo")
        matches = [pattern.fullmatch(path.relative_to(root).as_posix()) for path in found]
        return [match.groupdict() for match in matches if match]

    def _check_legend(self, root: Path) -> None:
        """Compare the data set's own file of names with the values that are used here."""
        if self.legend is None or self.legend_names is None or not (root / self.legend).exists():
            return
        lines = read_text(root / self.legend).splitlines()
        theirs = {value.strip(): name for value, _, name in (line.partition(":") for line in lines)}
        for value, name in self.legend_names.items():
            if "".join(theirs.get(value, "nothing").split()) != "".join(name.split()):
                found = theirs.get(value, "nothing").strip()
                raise ValueError(
                    f"{root / self.legend} calls value {value} {found!r}, which is {name!r} here"
                )


def existing(path: Path) -> Path:
    """Return PATH.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    return path


def check_size(photo: Path, size: tuple[int, int], who: str) -> None:
    """See that PHOTO, upright as it is shown, has the size that its truth has; as a rule only its header is read.

    Args:
        photo: The photo's path.
        size: Width and height in pixels that it should have.
        who: Who says so, as "a.png is".

    Raises:
        ValueError, OSError: it has another size, or is no photo.
    """
    shown = photo_size(photo)
    if shown == size:
        return
    found = f"{photo} is {shown[0]}x{shown[1]} but {who} {size[0]}x{size[1]}"
    if shown == size[::-1]:
        found += (
            ": a photo is shown upright, as its EXIF orientation says, and so must its truth be"
        )
    raise ValueError(found)


def photo_size(photo: Path) -> tuple[int, int]:
    """Return width and height in pixels of PHOTO as it is shown, upright; as a rule only its header is read.

    Raises:
        OSError: it is no photo.
    """
    try:
        return picture_size(photo)
    except (ValueError, OSError) as error:
        raise OSError(f"{photo} cannot be read as a photo: {error}") from error


def need(package: str, what: str) -> None:
    """See that PACKAGE, without which WHAT cannot be read, is installed.

    Raises:
        ValueError: it is not.
    """
    if find_spec(package) is None:
        raise ValueError(f"{what} need {package}: pip install 'maskfree[evaluate]'")


def _check_names(names: Sequence[str], path: Path) -> None:
    """Raises ValueError where the list in PATH names a photo twice, which would count twice, or one elsewhere."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path} names {name!r} {times} times: each photo counts once")
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ValueError(f"{path} names {name!r}, which leads out of the folder of photos")


def _fixed_part(root: Path, path: str) -> Path:
    """Return the folder, or file, that a path with gaps names before its first gap."""
    before = _GAP.split(path)[0]
    return root / (before if before == path else before.rpartition("/")[0])


def _table(
    ids: Mapping[int, int] | None, num_classes: int, nothing: int
) -> Int16[np.ndarray, " v"]:
    """Truth id of each value that a map may hold; the last entry stands for all values beyond."""
    ids = identity(num_classes) if ids is None else ids
    table = np.full(max(IGNORE, *ids) + 2, _WRONG, dtype=np.int16)
    table[IGNORE] = IGNORE
    for value, i in ids.items():
        table[value] = nothing if i == NOTHING else i
    return table


def _read_size(path: Path) -> tuple[int, int]:
    """Width and height of a truth map, from its header."""
    if path.suffix == ".mat":
        return _read_mat_size(path)
    try:
        return picture_size(path)
    except (ValueError, OSError) as error:
        raise OSError(f"{path} cannot be read as an index PNG: {error}") from error


def _read(path: Path, table: Int16[np.ndarray, " v"]) -> UInt8[np.ndarray, "h w"]:
    """Read a truth map: an index PNG or a .mat file."""
    values = _read_mat(path) if path.suffix == ".mat" else read_ids(path)
    truth = np.take(table, values, mode="clip")
    if wrong := values[truth == _WRONG].tolist():
        last = max(value for value in np.flatnonzero(table != _WRONG).tolist() if value != IGNORE)
        raise ValueError(
            f"{path} holds id {wrong[0]}, which stands for no class: ids run to {last}, and 255 is void"
        )
    return truth.astype(np.uint8)


def _read_mat_size(path: Path) -> tuple[int, int]:
    need("scipy", ".mat files")
    from scipy.io import whosmat

    with _as_mat(path):
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        height, width = shapes[_MAT_NAME]
    return int(width), int(height)


def _read_mat(path: Path) -> Int32[np.ndarray, "h w"]:
    need("scipy", ".mat files")
    from scipy.io import loadmat

    with _as_mat(path):
        values = loadmat(path, variable_names=[_MAT_NAME])[_MAT_NAME]
        ids = np.asarray(values).astype(np.int32)
        if ids.ndim != 2 or not np.array_equal(ids, values) or ids.min(initial=0) < 0:
            raise ValueError("its values are no ids of pixels")
    return ids


@contextmanager
def _as_mat(path: Path) -> Iterator[None]:
    """Say in one line why a .mat file cannot be read."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise ValueError(f"{path} is no .mat file with a {_MAT_NAME}: {error!r}") from error
