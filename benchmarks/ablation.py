"""What each part of ViL-Seg is worth: train a recipe with parts left out or exchanged, measure each on coco-mini.

    python benchmarks/ablation.py vilseg_pocket --data ../shared/data/coco-mini [--recipe.train.steps N] [--seeds 0 1 2]

Trained whole are the recipe ("full") and the recipe without L_vision. No gradient of the clustering head reaches the
encoder, so the others start from the full run's weights: without L_cluster every patch stands for itself, K-means takes
the head's place, and heads of other sizes are trained alone, all on the same batches. A run that was stopped goes on.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness import RESULTS, command_line
from maskfree import checkpoint, hub
from maskfree.data.benchmarks import Sample, benchmark
from maskfree.data.loader import Loaded, NoSamples, Share, Stream, build_loader, seed_of
from maskfree.evaluate.results import FORMAT, machine, versions, write_json
from maskfree.evaluate.zero_shot import Protocol, measure
from maskfree.methods.vilseg import ViLSeg, ViLSegConfig
from maskfree.optim import cosine, parameter_groups
from maskfree.recipes import RECIPES
from maskfree.resume import differences, settings_of
from maskfree.text.tokenize import Tokenizer
from maskfree.train import Recipe, fit

CLUSTERS = (5, 10, 15, 20, 25, 35)
BENCHMARK = "coco-mini"
Key = tuple[str, int, str]  # variant, seed, name set


@dataclass(frozen=True)
class Study:
    """One recipe and seed, and where its runs lie."""

    recipe: Recipe
    out: Path
    head_steps: int
    clusters: tuple[int, ...]

    @property
    def method(self) -> ViLSegConfig:
        """The recipe's method, of which every variant is a change.

        Raises:
            ValueError: the recipe trains something else, or a head whose gradient reaches the encoder.
        """
        method = self.recipe.method
        if not isinstance(method, ViLSegConfig) or method.cluster is None or not method.cluster.detach:
            raise ValueError("the ablation needs a ViL-Seg recipe with a clustering head that is detached")
        return replace(method, grouping="clusters")

    def variants(self) -> dict[str, Callable[[], Path]]:
        """Return the variants by name; each function gives the folder of its checkpoint, made if need be."""
        cluster = self.method.cluster
        assert cluster is not None
        pixels = replace(self.method, grouping="pixels", cluster=None)
        kmeans = replace(self.method, grouping="kmeans", cluster=None, kmeans_clusters=cluster.num_clusters)
        return {
            "full": lambda: self._trained("full", self.method),
            "without L_vision": lambda: self._trained("without-vision", replace(self.method, vision=None)),
            "without L_cluster, per pixel": lambda: self._changed("pixels", pixels),
            "K-means instead of the head": lambda: self._changed("kmeans", kmeans),
        } | {f"C = {count}": partial(self._with_head, count) for count in self.clusters}

    def _trained(self, name: str, method: ViLSegConfig) -> Path:
        folder = self.out / name
        if not (folder / "model" / "run.json").is_file():
            recipe = replace(self.recipe, name=f"{self.recipe.name}-{name}", method=method)
            done = fit(recipe, folder, resume_run=(folder / "run.json").is_file())
            if done < recipe.train.steps:
                sys.exit(f"stopped after step {done} of {recipe.train.steps}; the same command goes on")
        return folder / "model"

    def _changed(self, name: str, method: ViLSegConfig, head: dict[str, torch.Tensor] | None = None) -> Path:
        """Save the full run's weights as METHOD, HEAD's in the place of the clustering head's."""
        folder = self.out / name / "model"
        if not (folder / "run.json").is_file():
            weights, tokenizer, run = _read(self._trained("full", self.method))
            state = weights.state_dict() | (head or {})
            config = method.for_inference()
            built = config.build()
            built.load_state_dict({key: state[key] for key in built.state_dict()})
            record = {"name": f"{self.recipe.name}-{name}", "templates": run["templates"], "of": run["name"]}
            checkpoint.save(folder, built, config, tokenizer, record, self.recipe.train.storage)
        return folder

    def _with_head(self, count: int) -> Path:
        folder = self.out / f"clusters-{count}" / "model"
        if not (folder / "run.json").is_file():
            missing = [c for c in self.clusters if not (self.out / f"clusters-{c}" / "model" / "run.json").is_file()]
            for trained, head in self._train_heads(missing).items():
                self._changed(f"clusters-{trained}", self._with_clusters(trained), head)
        return folder

    def _with_clusters(self, count: int) -> ViLSegConfig:
        assert self.method.cluster is not None
        return replace(self.method, cluster=replace(self.method.cluster, num_clusters=count))

    def _train_heads(self, counts: Sequence[int]) -> dict[int, dict[str, torch.Tensor]]:
        """Train heads of all sizes COUNTS on the full run's frozen embeddings; return their weights by size."""
        config = self.recipe.train
        method, tokenizer, _ = _read(self._trained("full", self.method))
        terms = torch.nn.ModuleDict()
        for count in counts:
            torch.manual_seed(seed_of(config.seed, "head", count))
            cluster = self._with_clusters(count).cluster
            assert cluster is not None
            terms[str(count)] = cluster.build(self.method.embed_dim)
        groups = parameter_groups(terms.named_parameters(), config.weight_decay, {})
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
        batches = self._batches(tokenizer)
        for step in track(range(self.head_steps), description=f"heads of {', '.join(map(str, counts))} clusters"):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * cosine(step, self.head_steps, self.head_steps // 10)
            batch = next(batches).batch
            with torch.no_grad():
                pixels, twins = method.image(batch.images), method.image(batch.twins)
            losses = [term(pixels, twins, batch.twins_flipped, lambda tensor: tensor) for term in terms.values()]
            torch.stack([loss.total for loss in losses]).sum().backward()  # no weight is shared: each its own optimum
            optimizer.step()
            optimizer.zero_grad()
        return {c: {f"cluster.{key}": value for key, value in terms[str(c)].state_dict().items()} for c in counts}

    def _batches(self, tokenizer: Tokenizer) -> Iterator[Loaded]:
        data, config = self.recipe.data, self.recipe.train
        if data.shapes:  # drawn by the full run
            data = replace(data, shapes=0, shards=(str(self.out / "full" / "data"),))
        transform = replace(self.method, vision=None).build_transform(tokenizer)
        stream = Stream(data, transform, config.batch_size, seed_of(config.seed, "heads"), Share(0, 1))
        for item in build_loader(stream, data.workers):
            if isinstance(item, NoSamples):
                raise item
            yield item


def _read(folder: Path) -> tuple[ViLSeg, Tokenizer, dict[str, Any]]:
    method, tokenizer, run, _ = checkpoint.load(folder, {ViLSegConfig.__name__: ViLSegConfig})
    assert isinstance(method, ViLSeg)
    return method, tokenizer, run


class Ledger:
    """The results file: a row for each variant, seed and name set, written as soon as it is measured.

    Raises:
        ValueError: the file is there and holds rows of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.path = folder / "ablation.json"
        self.settings = settings
        self.rows: dict[Key, dict[str, Any]] = {}
        if self.path.exists():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if other := differences(content["settings"], settings):
                raise ValueError(f"{self.path} holds rows of another {', '.join(other)}: choose another --results")
            self.rows = {(row["variant"], row["seed"], row["protocol"]["names"]): row for row in content["rows"]}

    def add(self, key: Key, row: dict[str, Any]) -> None:
        """Note a row and write the file."""
        self.rows[key] = row
        content = {
            "format": FORMAT,
            "benchmark": "ablation",
            "command": command_line(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "machine": machine(torch.get_num_threads()),
            "settings": self.settings,
            "rows": list(self.rows.values()),
        }
        write_json(content, self.path)

    def table(self) -> Table:
        """Mean over the seeds and, with several, their standard deviation, in percent."""
        seeds = sorted({seed for _, seed, _ in self.rows})
        table = Table("variant", "names", title=f"ablation on {BENCHMARK}, no background, seeds {seeds}")
        for heading in ("mIoU", "pixel accuracy", "parameters", "s/photo"):
            table.add_column(heading, justify="right")
        for variant, names in dict.fromkeys((variant, names) for variant, _, names in self.rows):
            rows = [row for key, row in self.rows.items() if (key[0], key[2]) == (variant, names)]
            scores = [_spread([row[field] for row in rows]) for field in ("mean_iou", "pixel_accuracy")]
            seconds = statistics.mean(row["seconds_per_photo"] for row in rows)
            table.add_row(variant, names, *scores, f"{rows[0]['parameters'] / 1e6:.2f} M", f"{seconds:.2f}")
        return table


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


@dataclass(frozen=True)
class Options:
    """What is compared, and where things lie."""

    data: Path
    """Folder of coco-mini."""
    out: Path = Path("runs/ablation")
    """Folder for the runs; what lies there is used."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs; they replace the recipe's."""
    clusters: tuple[int, ...] = CLUSTERS
    """Sizes of the clustering head to compare."""
    head_steps: int = 500
    """Steps for which those heads are trained."""
    names: tuple[str, ...] = ("plain", "synonyms")
    """Name sets of coco-mini."""
    side_px: int = 448
    """Shorter side of the photo as the network sees it."""
    results: Path = RESULTS
    """Folder for ablation.json."""


def study(name: str, recipe: Recipe, options: Options) -> None:
    """Train and measure all variants of RECIPE that the results do not hold yet, and print the table."""
    samples = benchmark(BENCHMARK).samples(options.data)
    unseeded = settings_of(replace(recipe, train=replace(recipe.train, seed=0)))  # the rows say which seeds
    settings = {"recipe": unseeded, "head_steps": options.head_steps, "side_px": options.side_px}
    ledger = Ledger(options.results, settings)
    for seed in options.seeds:
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        variants = Study(seeded, options.out / f"{name}-seed{seed}", options.head_steps, options.clusters).variants()
        for variant, names in product(variants, options.names):
            if (variant, seed, names) not in ledger.rows:
                watch = partial(track, description=f"{variant}, {names} names", transient=True)
                protocol = Protocol(names, side_px=options.side_px)
                row = measure_variant(variants[variant](), samples, protocol, watch)
                ledger.add((variant, seed, names), {"variant": variant, "seed": seed} | row)
    Console().print(ledger.table())


def measure_variant(
    folder: Path, samples: Sequence[Sample], protocol: Protocol, watch: Callable[..., Any]
) -> dict[str, Any]:
    """Measure the checkpoint in FOLDER; return its row, with the number of its parameters."""
    segmenter = hub.load(folder)
    row = measure(segmenter, benchmark(BENCHMARK), samples, protocol, command_line(), watch)
    return {"parameters": sum(p.numel() for p in segmenter.method.parameters())} | asdict(row)


def main() -> None:
    """Read the command line, whose options depend on the recipe that comes first."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in RECIPES:
        sys.exit(f"usage: python benchmarks/ablation.py RECIPE --data FOLDER; recipes: {', '.join(RECIPES)}")
    default = RECIPES[name]()

    def run(
        options: Annotated[Options, tyro.conf.OmitArgPrefixes],
        recipe: Annotated[Recipe, tyro.conf.AvoidSubcommands] = default,
    ) -> None:
        try:
            study(name, recipe, options)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")

    tyro.cli(run, prog=f"python benchmarks/ablation.py {name}", args=sys.argv[2:])


if __name__ == "__main__":
    main()
