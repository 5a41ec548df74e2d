"""ViL-Seg's Tables 1 and 2 and Figures 5 and 6 (arXiv:2207.08455) at small scale, seed by seed, and
what they show.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.distillation.self_training import self_train
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.engine.config import Recipe
from maskfree.evaluation.named_protocols import DEFAULT_THRESHOLD
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting import charts
from maskfree.hub.catalog import model_folder
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.progress import Progress
from maskfree.recipes import vilseg_pocket
from maskfree.signals import Stopped
from studies.directions import Direction, found, tables
from studies.ledger import Measure, StudyRows, Variant, bare, read
from studies.options import CLUSTERS, ViLSegOptions
from studies.vilseg_figures import draw_regions
from studies.vilseg_heads import compare
from studies.vilseg_ladder import climb
from studies.vilseg_speed import speed
from studies.vilseg_study import Study

KIND = "reproduce-vilseg"
STUDENTS = f"{KIND}-students"
KEPT_HEAD = ", kept head"  # ends the names of the measures of these
NUM_CLUSTERS = 20
FULL, HARD, KMEANS, PIXELS = "ViL-Seg", "ViL-Seg, each pixel to one cluster", "K-means", "per pixel"
NO_VISION, NO_WORDS, STUDENT = "without L_vision", "without L_words", "ViL-Seg + ST"
PIXELS_STUDENT = "per pixel + ST"  # the same student: what groups its pixels is chosen afterwards
CLIP_SEG = "CLIP + Seg (MaskCLIP)"
# What Fig. 4 shows, by the folders of the runs.
REGIONS = {NO_VISION: "without-vision-clusters", KMEANS: "kmeans", FULL: "clusters-20"}
EXAMPLES = Path(__file__).parents[1] / "examples"
CAMVID_SIDE_PX = 360  # of its photos; the student learns from them as they are


COCO = Measure("coco-mini", "coco-mini", bare(names="synonyms"))
SMOOTHED = Measure("coco-mini, smoothed", "coco-mini", Protocol(names="synonyms"))
MEASURES = (
    COCO,
    Measure(
        "coco-mini with background",
        "coco-mini",
        bare(names="synonyms", background=DEFAULT_THRESHOLD),
    ),
    Measure("coco-mini-80", "coco-mini-80", bare()),
    Measure("coco-mini-80 with background", "coco-mini-80", bare(background=DEFAULT_THRESHOLD)),
    Measure("camvid", "camvid", bare()),
    SMOOTHED,
)
PLAIN = Measure("coco-mini, plain names", "coco-mini", bare())
CAMVID = MEASURES[4]
SMALL = Measure("camvid at 360 px", "camvid", bare(side_px=CAMVID_SIDE_PX))


def kept(measure: Measure) -> Measure:
    """Return MEASURE as the rows of students that kept their teacher's head have it."""
    return replace(measure, name=measure.name + KEPT_HEAD)


KEPT = (kept(CAMVID), kept(SMALL))
ALL_MEASURES = (*MEASURES, PLAIN, SMALL, *KEPT)

DIRECTIONS = (
    Direction("ViL-Seg is better than CLIP + Seg", FULL, CLIP_SEG, "Table 1: 34.4 over 27.4"),
    Direction("regions are better than pixels alone", FULL, PIXELS, "ours"),
    Direction("the online head is better than K-means", FULL, KMEANS, "Table 2"),
    Direction("L_vision helps", FULL, NO_VISION, "Table 2"),
    Direction("20 clusters are better than 5", FULL, "C = 5", "Fig. 5"),
    Direction("20 clusters are better than 35", FULL, "C = 35", "Fig. 5"),
    Direction("self-training helps ViL-Seg", STUDENT, FULL, "Table 1"),
    Direction("self-training helps single pixels", PIXELS_STUDENT, PIXELS, "ours"),
    Direction("soft regions are better than hard ones", FULL, HARD, "ours"),
    Direction("words as training text help", FULL, NO_WORDS, "ours; tags and nouns"),
    Direction("synonyms help", FULL, FULL, "the paper's outlook", (COCO, PLAIN)),
)


def reproduce(options: ViLSegOptions, recipe: Recipe | None = None) -> None:
    """Train and measure what the results do not hold yet, for each seed; print the tables and draw
    the figures.

    Raises:
        ValueError, OSError: data or weights are missing, or the results hold rows of other
            settings.
    """
    if options.part == "speed":
        speed(options)
        return

    recipe = recipe or _recipe(options)
    if options.part == "heads":
        compare(options, recipe)
        return
    if options.part == "ladder":
        climb(options, recipe)
        return

    samples = {
        name: benchmark(name).samples(options.data) for name in {m.benchmark for m in MEASURES}
    }
    for seed in options.seeds:
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        out = options.out / (f"{options.model}-seed{seed}" if options.model else f"seed{seed}")
        study = Study(seeded, out, options.head_photos, options.head_steps)
        own = f" --model {options.model}" if options.model else ""
        head = {
            "kind": KIND,
            "seed": seed,
            "model": options.model,
            "command": f"python -m studies vilseg --data ../shared/data{own}",
        }
        steps = {
            name: getattr(options, name) for name in ("head_photos", "head_steps", "student_steps")
        }
        ledger = StudyRows(
            options.results / f"{_stem(options)}-seed{seed}.json", head, recipe, steps
        )
        ledger.fill(_variants(study, options), samples, options.only, options.device)
        if seed == options.seeds[0]:
            _draw_regions(study, options.results)
    rows = study_rows(options.results, options.model)
    Console().print(*tables(rows, ALL_MEASURES, DIRECTIONS))
    draw(rows, options.results / _stem(options))


def study_rows(results: Path, model: str | None = None) -> list[dict[str, Any]]:
    """Read the rows of all seeds, and those of a later training whose student kept the head."""
    rows = read(results, KIND, model)
    for row in read(results, STUDENTS, model):
        rows.append(row | {"measure": row["measure"] + KEPT_HEAD})
    return rows


def _draw_regions(study: Study, results: Path) -> None:
    """Draw Fig. 4 of the example photos, if the study trained what it shows."""
    folders = {title: study.out / name / "model" for title, name in REGIONS.items()}
    if all((folder / "run.json").is_file() for folder in folders.values()):
        draw_regions(folders, sorted(EXAMPLES.glob("*.jpg")), results / f"{KIND}-regions.svg")


def _stem(options: ViLSegOptions) -> str:
    return f"{KIND}-{options.model}" if options.model else KIND


def _recipe(options: ViLSegOptions) -> Recipe:
    """The bundled model's recipe, cut down so that a training takes minutes of two cores."""
    image, text = options.find_weights()
    whole = vilseg_pocket()
    method = whole.method
    assert isinstance(method, ViLSegConfig)
    return replace(
        whole,
        name="study",
        method=replace(
            method,
            image=replace(method.image, weights=image),
            text=replace(method.text, weights=text),
            grouping="clusters",
        ),
        data=replace(whole.data, shards=options.shards()),
        train=replace(
            whole.train, steps=options.steps, frozen_steps=options.steps * 6 // 10, batch_size=32
        ),
    )


def _variants(study: Study, options: ViLSegOptions) -> Iterator[Variant]:
    method = study.method
    full = (
        partial(model_folder, options.model)
        if options.model
        else partial(study.trained, "full", method)
    )
    grouped = (COCO, CAMVID, SMOOTHED) if options.model else MEASURES
    no_vision = partial(study.trained, "without-vision", replace(method, vision=None))
    silent = method.words and replace(
        method.words, nouns_weight=0.0, kinds_weight=0.0, tags_weight=0.0
    )
    no_words = partial(study.trained, "without-words", replace(method, words=silent))
    pixels = replace(method, grouping="pixels", cluster=None)
    kmeans = replace(method, grouping="kmeans", cluster=None)

    def clustered(
        source: Callable[[], Path], name: str, count: int = NUM_CLUSTERS, **changes: Any
    ) -> Path:
        counts = sorted({*options.clusters, NUM_CLUSTERS}) if source is full else (NUM_CLUSTERS,)
        kept = study.out / f"heads-{'full' if source is full else name}.pt"
        heads = study.kept_heads(source(), counts, kept)
        return study.derived(
            name, source(), replace(study.with_clusters(count), **changes), heads[count]
        )

    main = partial(clustered, full, "clusters-20")
    yield Variant(FULL, main, grouped if options.model else (*grouped, PLAIN, SMALL))
    yield Variant(HARD, partial(clustered, full, "hard", assignment="hard"), grouped)
    yield Variant(KMEANS, lambda: study.derived("kmeans", full(), kmeans, {}), grouped)
    single = partial(study.derived, "pixels", method=pixels, head={})
    alone = grouped if options.model else (*grouped, SMALL)
    yield Variant(PIXELS, lambda: single(source=full()), alone)
    for count in options.clusters:
        if count != NUM_CLUSTERS:
            yield Variant(
                f"C = {count}", partial(clustered, full, f"clusters-{count}", count), (COCO, CAMVID)
            )
    if options.model:
        return
    yield Variant(NO_VISION, partial(clustered, no_vision, "without-vision-clusters"), MEASURES)
    if method.words:
        yield Variant(
            NO_WORDS, partial(clustered, no_words, "without-words-clusters"), (COCO, CAMVID)
        )
    student = partial(
        _student, out=study.out / "student-camvid", options=options, seed=study.recipe.train.seed
    )
    regions = (by_soft_clusters(CAMVID), by_soft_clusters(SMALL))
    yield Variant(STUDENT, lambda: student(main()), regions)
    yield Variant(PIXELS_STUDENT, lambda: student(main()), (CAMVID, SMALL))
    if options.clip and study.recipe.train.seed == options.seeds[0]:
        yield Variant(CLIP_SEG, partial(str, options.clip), (COCO, CAMVID))


def by_soft_clusters(chosen: Measure) -> Measure:
    """Return CHOSEN for a student that kept its teacher's head, read as its teacher is."""
    inference = replace(chosen.protocol.inference, grouping="soft clusters")
    return replace(chosen, protocol=replace(chosen.protocol, inference=inference))


def _student(teacher: Path, out: Path, options: ViLSegOptions, seed: int) -> Path:
    """Teach a student with what TEACHER says of CamVid's training photos."""
    train = benchmark("camvid-train")
    settings = SelfTrainConfig(class_prior=0.0)
    usual = settings.student.train
    schedule = replace(
        usual,
        steps=options.student_steps,
        frozen_steps=usual.frozen_steps * options.student_steps // usual.steps,
        seed=seed,
    )
    student = replace(settings.student, side_px=CAMVID_SIDE_PX, train=schedule)
    photos = [sample.photo for sample in train.samples(options.data)]
    found = self_train(
        teacher, train.words(), photos, out, replace(settings, student=student), Progress()
    )
    if found is None:
        raise Stopped
    return found


def draw(rows: Sequence[dict[str, Any]], stem: Path) -> None:
    """Draw Fig. 5, mIoU by number of clusters, and Fig. 6, IoU by class, into files that begin with
    STEM.
    """
    named = {count: FULL if count == NUM_CLUSTERS else f"C = {count}" for count in CLUSTERS}
    curves = []
    for chosen in (COCO, CAMVID):
        values = [list(found(rows, variant, chosen.name).values()) for variant in named.values()]
        if all(values):
            means = [statistics.mean(part) for part in values]
            spreads = (
                [statistics.stdev(part) for part in values] if min(map(len, values)) > 1 else []
            )
            curves.append(charts.Series(chosen.name, CLUSTERS, means, spreads))
    if curves:
        path = stem.with_name(f"{stem.name}-clusters.svg")
        charts.curve(
            curves, "clusters C", "mIoU", "ViL-Seg by number of clusters", path, fixed=NUM_CLUSTERS
        )
    seeds = [row["iou"] for row in rows if (row["variant"], row["measure"]) == (FULL, COCO.name)]
    if not seeds:
        return
    known = {name: [iou[name] for iou in seeds if iou[name] is not None] for name in seeds[0]}
    means = {name: statistics.mean(values) if values else None for name, values in known.items()}
    charts.class_bars(
        means,
        "ViL-Seg on coco-mini, all classes as unseen",
        stem.with_name(f"{stem.name}-classes.svg"),
    )
