"""From the paper's ViL-Seg to the bundled model's recipe (arXiv:2207.08455), one addition at a
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.engine.config import Recipe
from maskfree.evaluation.protocol import Protocol
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.vilseg.config import ClusterConfig, ViLSegConfig, VisionConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.dual_encoder import ImageProjector
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.progress import Watch
from studies.ledger import Measure, Samples, StudyRows, Variant, bare
from studies.options import ViLSegOptions
from studies.vilseg_study import Study

KIND = "reproduce-ladder"
COMMAND = (
    "python -m studies vilseg --data ../shared/data --part ladder --steps 30 --head-photos 320"
)
NUM_CLUSTERS = 20
SIDE_PX = 384  # of photos, as the bundled model sees them
VIEW_PX = 192  # of training views: on two slow cores every pixel counts
PAPER_PROMPT, SEVEN_PROMPTS = "photo", "ensemble"
SMOOTH = 3  # patches, as the bundled model's scores
WORD_WEIGHTS = ("nouns_weight", "kinds_weight", "tags_weight")

PAPER = "the paper's"
RUNGS = (
    PAPER,
    "+ visual words of a classifier",
    "+ L_words",
    "+ weights .25 and .1, 2 local crops",
    "+ standardized head, trained afterwards",
    "+ soft clusters",
    "+ seven prompts",
    "+ scores averaged over 3x3 patches",
    "+ single pixels instead of clusters",
)
"""Each with all that stands above it; tag scores and a longer training make it `pocket`."""
COLUMNS = ("coco-mini", "camvid")


def paper_method(method: ViLSegConfig) -> ViLSegConfig:
    """Return ViL-Seg as printed, with the encoders and the size of the space of METHOD.

    Linear projections, L_cross from image to text, L_vision with 6 local crops and L_cluster, each
    with weight 1; the most likely of 20 clusters.
    """
    return replace(
        method,
        image_projection=ProjectionConfig(),
        text_projection=ProjectionConfig(),
        cross=ContrastiveConfig(symmetric=False),
        vision=VisionConfig(),
        cluster=ClusterConfig(num_clusters=NUM_CLUSTERS),
        words=None,
        tag_scores=None,
        grouping="clusters",
        assignment="hard",
    )


def trainings(method: ViLSegConfig) -> dict[str, ViLSegConfig]:
    """Return what is trained, by the name of its rung; METHOD is the last one."""
    paper = paper_method(method)
    started = replace(
        paper,
        image_projection=method.image_projection,
        text_projection=method.text_projection,
        words=method.words and replace(method.words, **dict.fromkeys(WORD_WEIGHTS, 0.0)),
    )
    worded = replace(started, words=method.words)
    weighted = replace(worded, cross=method.cross, vision=method.vision)
    return dict(zip(RUNGS, (paper, started, worded, weighted), strict=False))


def recipe_of(recipe: Recipe) -> Recipe:
    """Return RECIPE for smaller views and with a frozen image encoder: a tenth of the work."""
    method = recipe.method
    assert isinstance(method, ViLSegConfig)
    views = replace(method.views, side_px=VIEW_PX)
    train = replace(
        recipe.train,
        batch_size=16,
        warm_up_steps=recipe.train.steps // 10,
        frozen=("image.encoder",),
        frozen_steps=recipe.train.steps,
        lr_multipliers=(("cluster", 3.0),),
        precision="32-true",
        devices="1",
    )
    return replace(recipe, name="ladder", method=replace(method, views=views), train=train)


def climb(options: ViLSegOptions, whole: Recipe) -> None:
    """Train and measure what the results do not hold yet of the rungs, seed by seed.

    Raises:
        ValueError, OSError: data or weights are missing, or the results hold rows of other
            settings.
    """
    recipe = recipe_of(whole)
    samples = {name: benchmark(name).samples(options.data) for name in COLUMNS}
    steps = {name: getattr(options, name) for name in ("head_photos", "head_steps")}
    for seed in options.seeds:
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        out = options.out / f"ladder-seed{seed}"
        study = Study(seeded, out, options.head_photos, options.head_steps)
        head = {"kind": KIND, "seed": seed, "model": None, "command": COMMAND}
        ledger = StudyRows(options.results / f"{KIND}-seed{seed}.json", head, recipe, steps)
        ledger.fill(variants(study), samples, options.only, options.device)


def variants(study: Study) -> Iterator[Variant]:
    """List the rungs of one seed; a rung's model is made when its row is asked for."""
    method = study.method
    trained = trainings(method)
    for rung, config in trained.items():
        name = f"rung-{RUNGS.index(rung) + 1}"
        yield Variant(rung, partial(study.trained, name, config), rows(PAPER_PROMPT))

    last = partial(study.trained, f"rung-{len(trained)}", trained[RUNGS[len(trained) - 1]])
    hard = replace(study.with_clusters(NUM_CLUSTERS), assignment="hard")
    soft = replace(hard, assignment="soft")
    pixels = replace(method, grouping="pixels", cluster=None)

    def grouped(name: str, config: ViLSegConfig) -> Path:
        heads = study.kept_heads(last(), (NUM_CLUSTERS,), study.out / "heads.pt")
        return study.derived(name, last(), config, heads[NUM_CLUSTERS])

    standardized, averaged, prompted, smoothed, single = RUNGS[len(trained) :]
    yield Variant(standardized, partial(grouped, "hard", hard), rows(PAPER_PROMPT))
    yield Variant(averaged, partial(grouped, "soft", soft), rows(PAPER_PROMPT))
    yield Variant(prompted, partial(grouped, "soft", soft), rows(SEVEN_PROMPTS))
    yield Variant(smoothed, partial(grouped, "soft", soft), rows(SEVEN_PROMPTS, SMOOTH))
    yield Variant(single, partial(grouped, "pixels", pixels), rows(SEVEN_PROMPTS, SMOOTH))


def rows(templates: str, smooth: int = 1) -> tuple[Measure, ...]:
    """Return what is measured of a rung: plain names, no class prior."""
    protocol: Protocol = replace(bare(side_px=SIDE_PX), templates=templates, smooth=smooth)
    return tuple(Remembering(name, name, protocol) for name in COLUMNS)


@dataclass(frozen=True)
class Remembering(Measure):
    """A measure that embeds each batch of photos once for all rungs with the same image side."""

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Label the benchmark's photos, and compare; the time is no model's."""
        method = segmenter.method
        assert isinstance(method, ViLSeg)
        method.image = Remembered.of(method.image)
        return super().row(segmenter, samples, command, watch)


class Remembered(ImageProjector):
    """An image side that keeps what it said of each batch."""

    last: ClassVar[Remembered | None] = None

    def __init__(self, image: ImageProjector, key: str):
        super().__init__(image.encoder, image.projection)
        self.key = key
        self._known: dict[str, Tensor] = {}

    @classmethod
    def of(cls, image: ImageProjector) -> Remembered:
        """Wrap IMAGE, or return what wraps the same weights already."""
        tensors = sorted(image.state_dict().items())
        key = _digest(*(tensor for _, tensor in tensors))
        if cls.last is None or cls.last.key != key:
            cls.last = cls(image, key)
        return cls.last

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of IMAGES, computed once."""
        key = _digest(images)
        if key not in self._known:
            self._known[key] = super().forward(images)
        return self._known[key]


def _digest(*tensors: Tensor) -> str:
    total = hashlib.sha1(usedforsecurity=False)
    for tensor in tensors:
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
