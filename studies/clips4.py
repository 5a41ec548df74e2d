"""CLIP-S4's Tables 2 to 8 at small scale, seed by seed, with the bundled model as teacher, and what
they show.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, benchmark
from maskfree.data.cache.region_preparation import SegmentPreparation
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.distillation.prototypes import prepare_prototypes
from maskfree.distillation.teacher_features import prepare_teacher
from maskfree.engine.config import Recipe
from maskfree.evaluation.class_free import unknown_classes
from maskfree.evaluation.probes.common import classes_of
from maskfree.evaluation.probes.config import KnnConfig
from maskfree.evaluation.probes.knn import segment_bank
from maskfree.evaluation.reporting import charts
from maskfree.evaluation.reporting.projection import draw_projection
from maskfree.hub import loading
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.clips4.config import CLIPS4Config
from maskfree.methods.clips4.objectives_config import SemanticConsistencyConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.ops.propagation_config import PropagationConfig
from maskfree.progress import Progress
from maskfree.recipes.clips4 import clips4_pocket
from maskfree.regions.region_maps import region_map
from studies.clips4_figures import SimilarityFigure, TopFigure, TrackingFigure
from studies.clips4_pictures import draw_embeddings, draw_retrieved, retrieve
from studies.clips4_variants import (
    ABLATIONS,
    CAMVID,
    CAMVID_OWN,
    COCO,
    COUNTS,
    DIRECTIONS,
    FULL,
    KNN,
    LINEAR,
    MEASURES,
    NAMED,
    NUM_FOLDS,
    PLUS,
    TEACHER,
    TOP,
    TOPS,
    Ablation,
    count_name,
    fold_measure,
    for_every_seed,
    second_time,
)
from studies.directions import found, tables
from studies.ledger import Figure, StudyRows, Variant, read
from studies.options import CLIPS4_TABLES, CLIPS4Options
from studies.training import trained

KIND = "reproduce-clips4"
COMMAND = "python -m studies clips4 --data ../shared/data"
_PAPER = SemanticConsistencyConfig()
_TEACHER_SIDE_PX = 352  # of photos that have 224
_TRACKING_SIDE_PX = 448
# Classes of coco-mini-80 that no student is trained with, and occur in several photos.
RETRIEVED = ("bed", "refrigerator", "truck", "donut")
NUM_RETRIEVED = 4
NUM_COLORED = 3  # photos of Fig. 1a


def reproduce(options: CLIPS4Options, recipe: Recipe | None = None) -> None:
    """Train and measure what the results do not hold yet, for each seed; print the tables and draw
    the figures.

    Raises:
        ValueError, OSError: data or weights are missing, a table is none of the study's, or the
            results hold rows of other settings.
    """
    if surplus := set(options.tables) - set(CLIPS4_TABLES):
        raise ValueError(
            f"table {min(surplus)} is none of the study's: {', '.join(map(str, CLIPS4_TABLES))}"
        )
    study = Study(options, recipe or _recipe(options))
    names = ("coco-mini", "camvid", "coco-mini-80")
    samples = {name: benchmark(name).samples(options.data) for name in names}
    for seed in sorted({*options.seeds, *(options.fold_seeds if 3 in options.tables else ())}):
        head = {"kind": KIND, "seed": seed, "model": None, "command": COMMAND}
        settings = {"fold_steps": options.fold_steps, "segments": asdict(options.segments)}
        ledger = StudyRows(
            options.results / f"{KIND}-seed{seed}.json", head, study.recipe, settings
        )
        ledger.fill(study.variants(seed), samples, options.only, options.device)
    rows = second_time(read(options.results, KIND))
    folds = tuple(map(fold_measure, range(NUM_FOLDS)))
    Console().print(*tables(for_every_seed(rows), (*MEASURES, *folds), DIRECTIONS))
    draw(rows, options.results / KIND)
    study.draw(samples, options.results / KIND)


def _recipe(options: CLIPS4Options) -> Recipe:
    """The small recipe, cut down so that one training takes minutes of a core."""
    whole = clips4_pocket()
    steps = options.steps
    train = replace(
        whole.train,
        steps=steps,
        frozen_steps=steps,
        warm_up_steps=steps // 10,
        batch_size=options.batch_size,
    )
    data = replace(whole.data, shards=options.shards(), workers=0)
    return replace(whole, name="study", init=options.model, data=data, train=train)


@dataclass(frozen=True)
class Photos:
    """Unlabeled photos that students learn from, and the classes that are asked for afterwards."""

    name: str
    benchmark: str
    names: str  # of these classes, as they are asked for
    sources: tuple[str, ...]
    shards: bool
    # the photos show the classes, so that these have prototypes of segments, as in the paper
    shown: bool


class Study:
    """The trainings of the study, and what they need of the photos, made when it is first asked
    for.
    """

    def __init__(self, options: CLIPS4Options, recipe: Recipe):
        self.recipe = recipe
        self._options = options
        street = options.data / "camvid" / "train" / "images"
        self._many = Photos(
            "flickr8k", "coco-mini", "synonyms", tuple(recipe.data.shards), True, False
        )
        self._street = Photos("camvid", "camvid", "plain", (str(street),), False, True)

    def variants(self, seed: int) -> Iterator[Variant]:
        """Yield what is measured with SEED; with seed 0 also the teacher and Table 8."""
        options, wanted = self._options, set(self._options.tables)
        first, folds = seed == 0, tuple(map(fold_measure, range(NUM_FOLDS)))
        if first:
            deep = self._deep(wanted & {4, 5})
            yield Variant(TEACHER, self._embedding, (*NAMED, CAMVID, CAMVID_OWN, *folds, *deep))
        if first and 8 in wanted:
            words = tuple(benchmark("coco-mini").words())
            tops = TopFigure(
                "prototypes",
                lambda: TeacherMaps(self._prepared(self._many) / "teacher"),
                words,
                TOPS,
            )
            yield Variant(TOP, lambda: options.model, (tops,))
        for ablation in ABLATIONS:
            tables = wanted.intersection(ablation.tables)
            if seed in options.seeds and tables - {3}:
                yield Variant(
                    ablation.name,
                    partial(self._student, ablation, self._many, seed),
                    (*self._by_names(tables), *self._deep(tables)),
                )
            if seed in options.seeds and 2 in tables:
                yield Variant(
                    ablation.name,
                    partial(self._student, ablation, self._street, seed),
                    (CAMVID, CAMVID_OWN),
                )
            if 3 in tables and seed in options.fold_seeds:
                for fold, measure in enumerate(folds):
                    yield Variant(
                        ablation.name,
                        partial(self._student, ablation, self._many, seed, fold),
                        (measure,),
                    )

    def _by_names(self, tables: set[int]) -> tuple[Figure, ...]:
        """Return how TABLES measure mIoU by names."""
        if 2 in tables:
            return NAMED
        return (COCO,) if tables & {6, 7} else ()

    def _deep(self, tables: set[int]) -> tuple[Figure, ...]:
        """Return what TABLES measure beside mIoU by names."""
        figures: list[Figure] = []
        if tables & {4, 7}:
            figures.append(KNN)
        if 4 in tables:
            figures.append(LINEAR)
        if 5 in tables:
            folder = self._options.data / "davis2016"
            figures.append(
                TrackingFigure("tracking", folder, _TRACKING_SIDE_PX, PropagationConfig())
            )
        if 6 in tables:
            figures.append(SimilarityFigure("similarity", "coco-mini", self._options.model))
        return tuple(figures)

    def _student(
        self, ablation: Ablation, photos: Photos, seed: int, fold: int | None = None
    ) -> Path:
        """Train the method of ABLATION on PHOTOS, without the unknown classes of FOLD if there is
        one.
        """
        method = self.recipe.method
        assert isinstance(method, CLIPS4Config) and method.semantic
        folder = self._prepared(photos)
        method = replace(
            method,
            semantic=replace(_PAPER if photos.shown else method.semantic, seed=seed),
            segments=str(folder / "segments"),
            teacher=str(folder / "teacher"),
            prototypes=str(self._prototypes(photos, fold)),
        )
        name = _folder_name(ablation.name, photos) + (f"-fold{fold}" if fold is not None else "")
        steps = self.recipe.train.steps if fold is None else self._options.fold_steps
        data = self.recipe.data
        run = replace(
            self.recipe,
            name=f"{self.recipe.name}-{name}",
            method=ablation.change(method),
            data=data if photos.shards else replace(data, shards=(), images=photos.sources),
            train=replace(
                self.recipe.train,
                steps=steps,
                frozen_steps=steps,
                warm_up_steps=steps // 10,
                seed=seed,
            ),
        )
        return trained(run, self._options.out / f"seed{seed}" / name)

    def draw(self, samples: Mapping[str, Sequence[AnnotatedPhoto]], stem: Path) -> None:
        """Draw Fig. 1a, 4a and 4b with the teacher and the students of seed 0, into files that
        begin with STEM.
        """
        trainings = {
            name: self._options.out / "seed0" / _folder_name(name, self._many)
            for name in (PLUS, FULL)
        }
        models = {
            name: str(out / "model") for name, out in trainings.items() if (out / "model").is_dir()
        }
        paths = {
            name: stem.with_name(f"{stem.name}-{name}")
            for name in ("colors.svg", "embeddings.svg", "retrieved.svg")
        }
        if all(path.exists() for path in paths.values()) or len(models) < len(trainings):
            return

        loaded = {TEACHER: self._embedding()}
        loaded |= {
            name: loading.load(model, self._options.device) for name, model in models.items()
        }
        photos = [
            sample.photo for sample in samples["coco-mini"][:: len(samples["coco-mini"]) // 3]
        ]
        draw_embeddings(loaded, photos[:3], paths["colors.svg"])
        self._draw_projection(loaded, samples["coco-mini"], paths["embeddings.svg"])

        words = benchmark("coco-mini-80").words()
        classes = {words.index(word): word for word in RETRIEVED}
        found = {
            name: retrieve(loaded[name], samples["coco-mini-80"], classes, NUM_RETRIEVED)
            for name in (PLUS, FULL)
        }
        draw_retrieved(found, paths["retrieved.svg"])

    def _draw_projection(
        self, models: Mapping[str, Segmenter], samples: Sequence[AnnotatedPhoto], path: Path
    ) -> None:
        """Draw Fig. 4a: the segments of coco-mini's classes as each model embeds them."""
        classes = classes_of(replace(benchmark(self._many.benchmark), background=False))
        banks = {}
        for name, model in models.items():
            bank = segment_bank(model, samples, len(classes) + 1, KnnConfig())
            named = bank.labels < len(classes)  # the last one is the background
            banks[name] = (bank.embeddings[named], bank.labels[named])
        draw_projection(
            banks, classes, path, fit="union", title="segments of coco-mini, principal components"
        )

    def _prepared(self, photos: Photos) -> Path:
        """Cut PHOTOS into regions and let the teacher see them; what is there is kept."""
        folder, config = self._options.out / photos.name, self._options.segments
        done = folder / "done"
        if not done.exists():
            cutting = SegmentPreparation(
                photos.sources, folder / "segments", asdict(config), self._options.workers
            )
            cutting.run(partial(region_map, config=config), Progress())
            prepare_teacher(self._teacher(), photos.sources, folder / "teacher", Progress())
            done.touch()
        return folder

    def _prototypes(self, photos: Photos, fold: int | None) -> Path:
        """Find the known classes among what the teacher saw: all of the benchmark's but those
        unknown in FOLD.
        """
        folder = self._prepared(photos)
        path = folder / (
            "prototypes.safetensors" if fold is None else f"prototypes-fold{fold}.safetensors"
        )
        if not path.exists():
            chosen = benchmark(photos.benchmark)
            unknown = unknown_classes(chosen, fold, NUM_FOLDS) if fold is not None else ()
            lines = zip(chosen.words(), chosen.words(photos.names), strict=True)
            teacher = self._teacher().with_words(
                [line for plain, line in lines if plain not in unknown], "none"
            )
            maps = TeacherMaps(folder / "teacher")
            prepare_prototypes(teacher, maps, watch=Progress())[0].write(path)
        return path

    def _embedding(self) -> Segmenter:
        """The model's embedding alone, which students learn from: not its scores of tags."""
        teacher = loading.load(self._options.model, self._options.device)
        assert isinstance(teacher.method, ViLSeg), "the teacher is of the bundled model's method"
        teacher.method.tag_scores = None
        return teacher

    def _teacher(self) -> Segmenter:
        teacher = self._embedding()
        return teacher.with_inference(replace(teacher.inference, side_px=_TEACHER_SIDE_PX))


def _folder_name(variant: str, photos: Photos) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', variant.lower()).strip('-')}-{photos.name}"


def draw(rows: Sequence[dict[str, Any]], stem: Path) -> None:
    """Draw Table 7, mIoU by nearest neighbors by number of unknown classes, into a file that begins
    with STEM.
    """
    values = [list(found(rows, count_name(count), KNN.name).values()) for count in COUNTS]
    if all(values):
        curve = charts.Series(KNN.name, COUNTS, list(map(statistics.mean, values)))
        path = stem.with_name(f"{stem.name}-unknown.svg")
        charts.curve(
            [curve], "unknown classes u", "mIoU", "CLIP-S4 by number of unknown classes", path
        )
