"""Catalog of segmentation benchmarks in their usual layout on disk.

A ground-truth map holds class ids 0..k-1 in the order of the class list, k for pixels of no listed
class if the benchmark has a background class, and 255 for pixels to ignore. Class lists are files
in `classes/`: one class per line, synonyms separated by slashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from maskfree.data.benchmarks.coco import CocoInstances
from maskfree.data.benchmarks.index_maps import IndexMaps, Truth
from maskfree.data.benchmarks.label_ids import (
    CLASSES,
    NOTHING,
    cityscapes,
    coarse,
    coco_stuff,
    context,
    counted,
    identity,
    read_renaming,
    with_void,
)
from maskfree.data.benchmarks.layouts import AnnotatedPhoto, Layout
from maskfree.files.atomic import read_text
from maskfree.ops.ignore import IGNORE

BACKGROUND = "background"  # line of a user's class list that is not a class of its own


@dataclass(frozen=True)
class Benchmark:
    """Labeled data set: its layout on disk, class lists and treatment of the background."""

    name: str
    """Name by which `benchmark` finds it."""
    title: str
    """Description in one line."""
    layout: Layout
    """Layout of the files on disk."""
    names: Mapping[str, str] = field(default_factory=dict)
    """File of the class list for each name set; "plain" is always among them."""
    background: bool = False
    """Whether pixels of no class are labeled as background; otherwise they are ignored."""
    unseen: tuple[str, ...] = ()
    """Plain names of the classes that zero-shot papers hold out."""
    num_photos: int | None = None
    """Number of photos as published."""
    halves: bool = False
    """Whether results also tell photos of even and of odd numbers apart, so that settings can be
    chosen on one half and reported on the other."""
    source: str = ""
    """Address of the data."""
    folders: tuple[str, ...] = ()
    """Usual folders of the data set below a root of several data sets."""
    lists_at: Path | None = CLASSES
    """Folder of the class lists; None means the root of the data, see `at`."""

    def words(self, name_set: str = "plain") -> tuple[str, ...]:
        """Read a class list.

        Args:
            name_set: Name set of the list.

        Returns:
            The classes with synonyms separated by slashes, as `Segmenter.with_words` takes them.

        Raises:
            ValueError, OSError: The benchmark has no such name set, or its list is malformed.
        """
        lines = _read_list(self._list(name_set))
        return tuple(line for line in lines if line.casefold() != BACKGROUND)

    def names_sha256(self, name_set: str) -> str:
        """SHA-256 of the file of a class list.

        Args:
            name_set: Name set of the list.

        Returns:
            The hash in hexadecimal.
        """
        return hashlib.sha256(self._list(name_set).read_bytes()).hexdigest()

    def find(self, root: Path) -> Path:
        """Find the folder of this benchmark.

        Args:
            root: Folder of the benchmark, or of several data sets.

        Returns:
            The root or a usual folder below it, whichever has all required files first. If none
            has, an existing usual folder, or else the root.
        """
        places = (root, *(root / folder for folder in self.folders))

        # A complete folder comes before one that only exists.
        for place in places:
            if self.layout.missing(place) is None:
                return place
        for place in places[1:]:
            if place.is_dir():
                return place
        return root

    def samples(self, root: Path) -> tuple[AnnotatedPhoto, ...]:
        """List the labeled photos without decoding them.

        Every file is checked to exist and to have the right size.

        Args:
            root: Folder of the benchmark, or of several data sets.

        Returns:
            The labeled photos in a fixed order.

        Raises:
            ValueError, OSError: A file is missing, or does not fit the others.
        """
        if not root.is_dir():
            raise FileNotFoundError(
                f"{root} is no folder; {self.name} needs {self.layout.describe()} under its root"
            )

        # Pixels of no class get the id after the last class, or are ignored.
        classes, nothing = self.words(), IGNORE
        if self.background:
            nothing = len(classes)

        try:
            return self.layout.samples(self.find(root), classes, nothing)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; {self.name} needs {self.layout.describe()}"
            ) from error

    def at(self, root: Path) -> Benchmark:
        """Complete this benchmark with the class list below a root.

        The list is `classes.txt`; further name sets, if any, are `classes_SET.txt`. Line n names
        value n of the ground-truth maps. A line "background" is not a class; its pixels belong to
        no class.

        Args:
            root: Folder of the benchmark.

        Returns:
            The completed benchmark; one with its own class list is returned unchanged.

        Raises:
            ValueError, OSError: A list is missing or malformed.
        """
        if self.lists_at is not None:
            return self

        # The name set is what follows the underscore in the file name.
        names = {"plain": "classes"}
        for path in sorted(root.glob("classes_*.txt")):
            names[path.stem.partition("_")[2]] = path.stem

        # Every name set must have its background in the same line.
        background = _background_lines(root / "classes.txt")
        for stem in names.values():
            if _background_lines(root / f"{stem}.txt") != background:
                raise ValueError(
                    f"{root / stem}.txt does not name the classes of classes.txt: "
                    "line n names value n"
                )

        # Class ids skip the background lines before them.
        ids: dict[int, int] = {}
        for value, is_background in enumerate(background):
            ids[value] = value - sum(background[:value])
            if is_background:
                ids[value] = NOTHING

        layout = IndexMaps(truths=(Truth(ids=ids),))
        return replace(self, names=names, lists_at=root, layout=layout, background=any(background))

    def _list(self, name_set: str) -> Path:
        """Path of a class list."""
        if self.lists_at is None:
            raise ValueError(f"{self.name} takes its class list from its root: say where that is")
        if name_set not in self.names:
            raise ValueError(
                f"{self.name} has no name set {name_set!r}: choose from {', '.join(self.names)}"
            )
        return self.lists_at / f"{self.names[name_set]}.txt"


def benchmark(name: str, root: Path | None = None) -> Benchmark:
    """Look up a benchmark by name.

    Args:
        name: Name in `BENCHMARKS`.
        root: Folder of the benchmark; needed for "folder", whose class list lies with the data.

    Returns:
        The benchmark, with the class list of the root if it has none of its own.

    Raises:
        ValueError, OSError: There is no such benchmark, or the class list is missing or malformed.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    if root is None:
        return BENCHMARKS[name]
    return BENCHMARKS[name].at(root)


def files_sha256(samples: tuple[AnnotatedPhoto, ...]) -> str:
    """SHA-256 of the photos' paths, to tell whether two runs used the same files.

    Args:
        samples: Labeled photos, in order.

    Returns:
        The hash in hexadecimal, of the paths under the root with one path per line.
    """
    lines = "\n".join(sample.key for sample in samples)
    # Paths need not be valid UTF-8.
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _background_lines(path: Path) -> list[bool]:
    """Whether each line of a class list is the background."""
    return [line.casefold() == BACKGROUND for line in _read_list(path)]


def _read_list(path: Path) -> list[str]:
    """Lines of a class list, in which no word may name two classes."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: it names the classes, one a line")

    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    # Ids are stored in 8 bits, and 255 means ignored.
    if len(lines) >= IGNORE:
        raise ValueError(
            f"{path} has {len(lines)} lines: a truth map has room for {IGNORE - 1} classes"
        )

    # Synonyms of one line may repeat one another; words of different lines may not.
    line_of_word: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line or "," in line or not line.isprintable():
            raise ValueError(
                f"{path}:{number} is {line!r}: a line is one class, without commas and tabs"
            )

        words = {" ".join(word.split()).casefold() for word in line.split("/")}
        for word in words - {BACKGROUND}:
            if (other := line_of_word.setdefault(word, number)) != number:
                raise ValueError(
                    f"{path}:{number} has {word!r}, as line {other}: each word names one class"
                )

    if not line_of_word:
        raise ValueError(f"{path} names no class")
    return lines


_VOC20 = {"plain": "voc20", "synonyms": "voc20_synonyms"}
_VOC20_PUBLISHED = _VOC20 | {"sclip": "voc20_sclip", "tcl": "voc20_tcl"}
_COCO80 = {"plain": "coco80", "synonyms": "coco80_synonyms"}
_VOC_UNSEEN = ("potted plant", "sheep", "sofa", "train", "tv monitor")
_COCO = "https://cocodataset.org/"
_CAMVID = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
_COCO_VAL = ("val2017/{name}.jpg", "images/val2017/{name}.jpg")
_STUFF_FOLDERS = ("stuffthingmaps/val2017", "annotations/val2017")


def _voc(part: str) -> IndexMaps:
    """Layout of PASCAL VOC 2012."""
    truth = Truth("SegmentationClass/{name}.png", counted(20, NOTHING))
    return IndexMaps(("JPEGImages/{name}.jpg",), (truth,), (f"ImageSets/Segmentation/{part}.txt",))


def _voc_augmented() -> IndexMaps:
    """Layout of PASCAL VOC 2012 with the masks of SBD (Hariharan et al. 2011), as commonly copied.

    Its list is distributed under several names.
    """
    truth = Truth("SegmentationClassAug/{name}.png", counted(20, NOTHING))
    lists = ("Segmentation/trainaug", "Segmentation/train_aug", "SegmentationAug/train_aug")
    return IndexMaps(
        ("JPEGImages/{name}.jpg",), (truth,), tuple(f"ImageSets/{name}.txt" for name in lists)
    )


def _stuff(official: Mapping[int, int], train_ids: Mapping[int, int]) -> IndexMaps:
    """Layout of COCO-Stuff, with the official or the converted maps."""
    raw, converted = [], []
    for folder in _STUFF_FOLDERS:
        raw.append(Truth(f"{folder}/{{name}}.png", official))
        converted.append(Truth(f"{folder}/{{name}}_labelTrainIds.png", train_ids))
    return IndexMaps(_COCO_VAL, (*raw, *converted))


def _camvid(part: str) -> IndexMaps:
    """Layout of CamVid."""
    # Copies of the data set come in two layouts.
    photos = (f"{part}/images/{{name}}.{{suffix}}", f"{part}/{{name}}.png")
    truths = (
        Truth(f"{part}/labels/{{name}}.png", with_void(11)),
        Truth(f"{part}annot/{{name}}.png", with_void(11)),
    )
    return IndexMaps(photos, truths)


# Benchmarks of which several variants are listed below.
_VOC21 = Benchmark(
    "voc21",
    "PASCAL VOC 2012 validation, 20 classes and background",
    _voc("val"),
    _VOC20_PUBLISHED,
    background=True,
    unseen=_VOC_UNSEEN,
    num_photos=1449,
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    folders=("VOCdevkit/VOC2012", "VOC2012"),
)
_CONTEXT60 = Benchmark(
    "context60",
    "PASCAL Context validation, 59 classes and background",
    IndexMaps(
        ("JPEGImages/{name}.jpg",),
        (
            Truth("SegmentationClassContext/{name}.png", counted(59, NOTHING)),
            Truth("trainval/{name}.mat", context()),
        ),
        (
            "ImageSets/SegmentationContext/val.txt",
            "pascalcontext_val.txt",
            "ImageSets/Main/val.txt",
        ),
        legend="labels.txt",
        legend_names=read_renaming("context459_to_context59"),
    ),
    {"plain": "context59", "synonyms": "context59_synonyms", "sclip": "context59_sclip"},
    background=True,
    unseen=("cow", "motorbike", "sofa", "cat"),
    num_photos=5105,
    source="https://cs.stanford.edu/~roozbeh/pascal-context/",
    folders=("VOCdevkit/VOC2010", "VOC2010"),
)
_COCO_STUFF = Benchmark(
    "coco-stuff",
    "COCO-Stuff 164k validation, 171 classes",
    _stuff(coco_stuff(), identity(171)),
    {"plain": "coco_stuff171", "synonyms": "coco_stuff171_synonyms"},
    unseen=(
        *("frisbee", "skateboard", "cardboard", "carrot", "scissors", "suitcase", "giraffe", "cow"),
        *("road", "wall concrete", "tree", "grass", "river", "clouds", "playingfield"),
    ),
    num_photos=5000,
    source="https://github.com/nightrome/cocostuff",
    folders=("coco", "cocostuff", "coco_stuff164k"),
)
_COCO_MINI = Benchmark(
    "coco-mini",
    "159 COCO-2017 photos, the 20 classes of PASCAL VOC",
    CocoInstances(renamed="coco_to_voc20"),
    _VOC20,
    background=True,
    unseen=_VOC_UNSEEN,
    num_photos=159,
    halves=True,
    source=_COCO,
    folders=("coco-mini",),
)
_CAMVID_VAL = Benchmark(
    "camvid",
    "CamVid validation, 101 street scenes, 11 classes",
    _camvid("val"),
    {"plain": "camvid11", "synonyms": "camvid11_synonyms"},
    num_photos=101,
    source=_CAMVID,
    folders=("camvid", "CamVid"),
)
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        replace(
            _VOC21, name="voc20", title="PASCAL VOC 2012 validation, 20 classes", background=False
        ),
        _VOC21,
        replace(
            _VOC21,
            name="voc-train",
            title="PASCAL VOC 2012 training, 20 classes and background",
            layout=_voc("train"),
            num_photos=1464,
        ),
        replace(
            _VOC21,
            name="voc-trainaug",
            title="PASCAL VOC 2012 training with SBD, 20 classes and background",
            layout=_voc_augmented(),
            num_photos=10582,
        ),
        replace(
            _CONTEXT60,
            name="context59",
            title="PASCAL Context validation, 59 classes",
            background=False,
        ),
        _CONTEXT60,
        _COCO_STUFF,
        replace(
            _COCO_STUFF,
            name="coco-stuff-27",
            title="COCO-Stuff 164k validation, 27 coarse classes",
            layout=_stuff(coarse(coco_stuff()), coarse(identity(171))),
            names={"plain": "coco_stuff27", "fine": "coco_stuff27_fine"},
            unseen=(),
        ),
        Benchmark(
            "coco-object",
            "COCO 2017 validation, 80 thing classes and background",
            CocoInstances(("val2017", "images/val2017"), "annotations/instances_val2017.json"),
            _COCO80 | {"sclip": "coco80_sclip"},
            background=True,
            num_photos=5000,
            source=_COCO,
            folders=("coco", "coco_stuff164k"),
        ),
        Benchmark(
            "ade20k",
            "ADE20K validation (SceneParsing), 150 classes",
            IndexMaps(
                ("images/validation/{name}.jpg",),
                (Truth("annotations/validation/{name}.png", counted(150, IGNORE)),),
            ),
            {"plain": "ade150"},
            num_photos=2000,
            source="http://sceneparsing.csail.mit.edu/",
            folders=("ADEChallengeData2016", "ade/ADEChallengeData2016"),
        ),
        Benchmark(
            "cityscapes",
            "Cityscapes validation, 19 classes of street scenes",
            IndexMaps(
                ("leftImg8bit/val/{city}/{name}_leftImg8bit.png",),
                (
                    Truth("gtFine/val/{city}/{name}_gtFine_labelTrainIds.png"),
                    Truth("gtFine/val/{city}/{name}_gtFine_labelIds.png", cityscapes()),
                ),
            ),
            {"plain": "cityscapes19", "synonyms": "cityscapes19_synonyms"},
            num_photos=500,
            source="https://www.cityscapes-dataset.com/",
            folders=("cityscapes",),
        ),
        _CAMVID_VAL,
        replace(
            _CAMVID_VAL,
            name="camvid-train",
            title="CamVid training, 367 street scenes, 11 classes",
            layout=_camvid("train"),
            num_photos=367,
        ),
        _COCO_MINI,
        replace(
            _COCO_MINI,
            name="coco-mini-80",
            title="159 COCO-2017 photos, all 80 thing classes",
            layout=CocoInstances(),
            names=_COCO80,
            unseen=(),
        ),
        Benchmark(
            "folder",
            "Your own photos and index PNGs, with a class list",
            IndexMaps(),
            lists_at=None,
        ),
    )
}
