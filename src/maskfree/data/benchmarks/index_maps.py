"""Photos with one map of values each, found by path patterns.

Path patterns contain placeholders: in `images/{name}.{suffix}`, each placeholder stands for what
differs between the photos. The paths of the ground-truth maps use the same placeholders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int16, Int32, UInt8

from maskfree.data.benchmarks.label_ids import NOTHING, identity
from maskfree.data.benchmarks.layouts import AnnotatedPhoto, Layout, check_size, existing, need
from maskfree.data.decoding import picture_size
from maskfree.data.id_maps import read_ids
from maskfree.data.photo_folders import only_photos
from maskfree.files.atomic import read_text
from maskfree.ops.ignore import IGNORE

_GAP = re.compile(r"{(\w+)}")
_MAT_NAME = "LabelMap"
_WRONG = -2  # in a table of ids: a value without a meaning


@dataclass(frozen=True)
class Truth:
    """Kind of ground-truth map: its path and the meaning of its values."""

    path: str = "labels/{name}.png"
    """Path pattern of an index PNG, or of a .mat file with a `LabelMap`."""
    ids: Mapping[int, int] | None = None
    """Class id, NOTHING or IGNORE of each value; None if the values are class ids."""


@dataclass(frozen=True)
class IndexMaps(Layout):
    """Photos with one map of values each; of alternative places, the first that exists is read."""

    photo_paths: tuple[str, ...] = ("images/{name}.{suffix}",)
    """Alternative path patterns of the photos."""
    truths: tuple[Truth, ...] = (Truth(),)
    """Alternative kinds of ground-truth maps."""
    lists: tuple[str, ...] = ()
    """Alternative files that list the names of the photos, one per line; empty for all photos."""
    legend: str | None = None
    """Optional file of "value: name" lines, which must not contradict `legend_names`."""
    legend_names: Mapping[str, str] | None = None
    """Expected name of each value in the legend."""

    def describe(self) -> str:
        """Describe the required files in one line.

        Returns:
            The description, for messages.
        """
        kinds = []
        for alternatives in self._kinds():
            kind = " or ".join(_GAP.sub("*", path) for path in alternatives)
            if len(alternatives) > 1:
                kind = f"({kind})"
            kinds.append(kind)
        return " and ".join(kinds)

    def missing(self, root: Path) -> Path | None:
        """Find the first missing folder or file of those that are required.

        Args:
            root: Folder of the data set.

        Returns:
            The missing path, or None if all exist.
        """
        for kind in self._kinds():
            if not any(_fixed_part(root, path).exists() for path in kind):
                return _fixed_part(root, kind[0])
        return None

    def photos(self, root: Path) -> tuple[str, ...]:
        """List the photos, sorted by name or in the order of the list.

        Args:
            root: Folder of the data set.

        Returns:
            Paths of the photos under the root.
        """
        return tuple(path for path, _ in self._pairs(root)[0])

    def samples(
        self, root: Path, classes: tuple[str, ...], nothing: int
    ) -> tuple[AnnotatedPhoto, ...]:
        """List the photos, each with its ground-truth map.

        Args:
            root: Folder of the data set.
            classes: Names of the class ids.
            nothing: Value for pixels of no class.

        Returns:
            The labeled photos; all exist and have the size of their maps.
        """
        pairs, truth = self._pairs(root)
        self._check_legend(root)
        table = _table(truth.ids, len(classes), nothing)

        # Only headers are read here; maps are decoded on demand.
        samples = []
        for path, labels in pairs:
            check_size(root / path, _read_size(labels), f"{labels.name} is")
            samples.append(AnnotatedPhoto(path, root / path, partial(_read, labels, table)))
        return tuple(samples)

    def _kinds(self) -> list[tuple[str, ...]]:
        """Path patterns of each kind of required file, alternatives together."""
        truths = tuple(truth.path for truth in self.truths)
        return [kind for kind in (self.photo_paths, truths, self.lists) if kind]

    def _pairs(self, root: Path) -> tuple[list[tuple[str, Path]], Truth]:
        """Photos with the paths of their ground-truth maps, and the kind of these maps."""
        if absent := self.missing(root):
            raise FileNotFoundError(f"{absent} is missing")

        photo_path = next(path for path in self.photo_paths if _fixed_part(root, path).exists())
        gaps = self._gaps(root, photo_path)

        # The first photo decides which kind of ground-truth map is read.
        truth = self.truths[0]
        for alternative in self.truths:
            if (root / alternative.path.format(**gaps[0])).exists():
                truth = alternative
                break

        pairs = []
        for gap in gaps:
            labels = existing(root / truth.path.format(**gap))
            pairs.append((photo_path.format(**gap), labels))
        for path, _ in pairs:
            existing(root / path)
        return pairs, truth

    def _gaps(self, root: Path, photo_path: str) -> list[dict[str, str]]:
        """Values of the placeholders for each photo."""
        if self.lists:
            path = next(root / name for name in self.lists if (root / name).exists())
            names = read_text(path).split()
            if not names:
                raise ValueError(f"{path} names no photo")
            # A name goes into a path, so it must stay below the root.
            _check_names(names, path)
            return [{"name": name} for name in names]

        # Without a list, match all files with the photo pattern to get the placeholders' values.
        pattern = _pattern(photo_path)
        found = sorted(only_photos(root.glob(_GAP.sub("*", photo_path)), root))
        if not found:
            raise ValueError(f"{_fixed_part(root, photo_path)} holds no photo")

        gaps = []
        for path in found:
            if match := pattern.fullmatch(path.relative_to(root).as_posix()):
                gaps.append(match.groupdict())
        return gaps

    def _check_legend(self, root: Path) -> None:
        """Check that the data set's own legend agrees with the values used here."""
        if self.legend is None or self.legend_names is None or not (root / self.legend).exists():
            return

        names: dict[str, str] = {}
        for line in read_text(root / self.legend).splitlines():
            value, _, name = line.partition(":")
            names[value.strip()] = name

        # Spaces are ignored in the comparison.
        for value, expected in self.legend_names.items():
            found = names.get(value, "nothing")
            if "".join(found.split()) != "".join(expected.split()):
                raise ValueError(
                    f"{root / self.legend} calls value {value} {found.strip()!r}, "
                    f"which is {expected!r} here"
                )


def _check_names(names: Sequence[str], path: Path) -> None:
    """Raise ValueError for a list that names a photo twice or one outside of the folder."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path} names {name!r} {times} times: each photo counts once")
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ValueError(f"{path} names {name!r}, which leads out of the folder of photos")


def _fixed_part(root: Path, path: str) -> Path:
    """The folder or file before the first placeholder of a path pattern."""
    before = _GAP.split(path)[0]
    # Without a placeholder the whole path is fixed.
    if before != path:
        before = before.rpartition("/")[0]
    return root / before


def _pattern(path: str) -> re.Pattern[str]:
    """Regular expression of a path pattern, with a named group for each placeholder."""
    # Every second piece is the name of a placeholder.
    expression = ""
    for number, piece in enumerate(_GAP.split(path)):
        if number % 2:
            expression += f"(?P<{piece}>[^/]+)"
        else:
            expression += re.escape(piece)
    return re.compile(expression)


def _table(
    ids: Mapping[int, int] | None, num_classes: int, nothing: int
) -> Int16[np.ndarray, " v"]:
    """Id of each value that a map may hold; the last entry stands for all larger values."""
    if ids is None:
        ids = identity(num_classes)
    # One entry more than the largest value, for all values beyond it.
    table = np.full(max(IGNORE, *ids) + 2, _WRONG, dtype=np.int16)

    # 255 is ignored in every data set.
    table[IGNORE] = IGNORE
    for value, class_id in ids.items():
        if class_id == NOTHING:
            class_id = nothing
        table[value] = class_id
    return table


def _read_size(path: Path) -> tuple[int, int]:
    """Width and height of a ground-truth map, from its header."""
    if path.suffix == ".mat":
        return _read_mat_size(path)
    try:
        return picture_size(path)
    except (ValueError, OSError) as error:
        raise OSError(f"{path} cannot be read as an index PNG: {error}") from error


def _read(path: Path, table: Int16[np.ndarray, " v"]) -> UInt8[np.ndarray, "h w"]:
    """Read a ground-truth map from an index PNG or a .mat file."""
    values: np.ndarray
    if path.suffix == ".mat":
        values = _read_mat(path)
    else:
        values = read_ids(path)

    # Clipping maps all values beyond the table to its last entry.
    truth = np.take(table, values, mode="clip")
    # Fail on a value without a meaning, rather than ignore its pixels.
    if wrong := values[truth == _WRONG].tolist():
        known = set(np.flatnonzero(table != _WRONG).tolist()) - {IGNORE}
        raise ValueError(
            f"{path} holds id {wrong[0]}, which stands for no class: "
            f"ids run to {max(known)}, and 255 is void"
        )
    return truth.astype(np.uint8)


def _read_mat_size(path: Path) -> tuple[int, int]:
    """Width and height of a .mat file's map, from its header."""
    need("scipy", ".mat files")
    from scipy.io import whosmat

    with _as_mat(path):
        # whosmat reads the header only.
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        height, width = shapes[_MAT_NAME]
    return int(width), int(height)


def _read_mat(path: Path) -> Int32[np.ndarray, "h w"]:
    """Read the map of a .mat file."""
    need("scipy", ".mat files")
    from scipy.io import loadmat

    with _as_mat(path):
        values = loadmat(path, variable_names=[_MAT_NAME])[_MAT_NAME]
        ids = np.asarray(values).astype(np.int32)

        # The conversion to integers must not have changed a value.
        if ids.ndim != 2 or not np.array_equal(ids, values) or ids.min(initial=0) < 0:
            raise ValueError("its values are no ids of pixels")
    return ids


@contextmanager
def _as_mat(path: Path) -> Iterator[None]:
    """Convert the errors of scipy on a damaged .mat file to one ValueError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise ValueError(f"{path} is no .mat file with a {_MAT_NAME}: {error!r}") from error
