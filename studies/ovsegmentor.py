"""OVSegmentor's Tables 1 and 3 to 7 (arXiv:2301.09121) at small scale, seed by seed, and what they
show.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.entities.preparation import Preparation, finished
from maskfree.data.shards import find_shards
from maskfree.engine.config import Recipe
from maskfree.evaluation.reporting import charts
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.progress import Progress
from maskfree.recipes import ovsegmentor_pocket
from maskfree.text.entities import EntitySet
from studies.directions import tables, together
from studies.ledger import Measure, StudyRows, Variant, read
from studies.options import OVSEGMENTOR_TABLES, OVSegmentorOptions
from studies.ovsegmentor_variants import (
    ABLATIONS,
    ALL_MEASURES,
    CAMVID,
    COCO,
    COUNT,
    COUNTS,
    DIRECTIONS,
    GROUPVIT,
    MEASURES,
    RATIO,
    RATIOS,
    cell,
    earlier,
)
from studies.training import trained

KIND = "reproduce-ovsegmentor"
COMMAND = "python -m studies ovsegmentor --data ../shared/data"


def reproduce(options: OVSegmentorOptions, recipe: Recipe | None = None) -> None:
    """Train and measure what the results do not hold yet, for each seed; print the tables and draw
    the figure.

    Raises:
        ValueError, OSError: data or weights are missing, a table or variant is none of the study's,
            or the results hold rows of other settings.
    """
    if surplus := set(options.tables) - set(OVSEGMENTOR_TABLES):
        raise ValueError(
            f"table {min(surplus)} is none of the study's: "
            f"{', '.join(map(str, OVSEGMENTOR_TABLES))}"
        )
    known = [*(ablation.name for ablation in ABLATIONS), GROUPVIT]
    if surplus := set(options.only) - set(known):
        raise ValueError(f"the study has no variant {min(surplus)!r}: {', '.join(known)}")
    recipe = recipe or _recipe(options)
    samples = {
        name: benchmark(name).samples(options.data) for name in {m.benchmark for m in MEASURES}
    }
    seeds = sorted({*options.seeds, *options.more_seeds})
    for seed in seeds:
        head = {"kind": KIND, "seed": seed, "model": None, "command": COMMAND}
        ledger = StudyRows(options.results / f"{KIND}-seed{seed}.json", head, recipe, {})
        ledger.fill(
            _variants(recipe, options, seed, seed == seeds[0]),
            samples,
            options.only,
            options.device,
        )
    rows = study_rows(options.results)
    Console().print(*tables(rows, ALL_MEASURES, DIRECTIONS))
    draw(rows, options.results / KIND)


def _recipe(options: OVSegmentorOptions) -> Recipe:
    """The small recipe, cut down so that one training takes minutes of two cores."""
    whole = ovsegmentor_pocket()
    return replace(
        whole,
        name="study",
        data=replace(whole.data, shards=options.shards(), index=str(options.out / "entities")),
        train=replace(
            whole.train,
            steps=options.steps,
            frozen_steps=options.steps,
            batch_size=options.batch_size,
        ),
    )


def _variants(
    recipe: Recipe, options: OVSegmentorOptions, seed: int, first: bool
) -> Iterator[Variant]:
    """Yield what is measured with SEED; GroupViT, which has none, with the FIRST.

    Raises:
        ValueError: the recipe's method is not the one that Tables 3 to 6 vary.
    """
    method = recipe.method
    if not isinstance(method, OVSegmentorConfig) or method.entity is None or method.masks is None:
        raise ValueError("the study needs an OVSegmentor recipe with both losses")
    if (method.image.num_groups, method.masks.ratio) != (COUNT, RATIO):
        raise ValueError(
            f"the study's full method has {COUNT} groups and masks.ratio {RATIO}, "
            f"not {method.image.num_groups} and {method.masks.ratio}"
        )
    for ablation in ABLATIONS:
        if any(
            table in options.tables and seed in _seeds(options, table) for table in ablation.tables
        ):
            name = re.sub(r"[^a-z0-9.]+", "-", ablation.name.lower()).strip("-")
            run = replace(
                recipe,
                name=f"{recipe.name}-{name}",
                method=ablation.change(method),
                train=replace(recipe.train, seed=seed),
            )
            made = partial(_trained, run, options.out / f"seed{seed}" / name)
            yield Variant(ablation.name, made, ablation.measures)
    if first and options.groupvit:
        name = options.groupvit
        yield Variant(GROUPVIT, lambda: name, MEASURES)


def _seeds(options: OVSegmentorOptions, table: int) -> tuple[int, ...]:
    return options.seeds if table == OVSEGMENTOR_TABLES[0] else options.more_seeds


def _trained(recipe: Recipe, folder: Path) -> Path:
    """Train, once there is an index of the photos' entities.

    A run that draws its photos indexes them, too.
    """
    if not recipe.data.shapes:
        _prepare(recipe)
    return trained(recipe, folder)


def _prepare(recipe: Recipe) -> None:
    assert isinstance(recipe.method, OVSegmentorConfig)
    out, entities = Path(recipe.data.index), recipe.method.entities
    if finished(out):
        return
    work, settings = (
        Preparation(tuple(map(Path, find_shards(recipe.data.shards))), out),
        {"entities": entities},
    )
    work.start(settings, resume=True)
    finder = EntitySet.read(entities)
    work.find(finder, Progress())
    work.finish(finder, settings)


def study_rows(results: Path) -> list[dict[str, Any]]:
    """Read the rows of all seeds; those of the first study have measures of another name."""
    rows = []
    for row in read(results, KIND):
        if row.get("earlier"):
            (measure,) = (each for each in MEASURES if each.name == row["measure"])
            row = row | {"measure": earlier(measure).name}
        rows.append(row)
    return rows


def measured(
    rows: Sequence[dict[str, Any]], variants: Sequence[str], measures: Sequence[Measure]
) -> Sequence[Measure]:
    """Return MEASURES, or those of the first study where only that measured all VARIANTS."""
    if all(together(rows, variants, measures[0].name)):
        return measures
    return tuple(map(earlier, measures))


def draw(rows: Sequence[dict[str, Any]], stem: Path) -> None:
    """Draw Table 5, mIoU by ratio for each number of groups, into files that begin with STEM."""
    for chosen in (COCO, CAMVID):
        curves = _curves(rows, chosen) or _curves(rows, earlier(chosen))
        if curves:
            title = f"OVSegmentor on {chosen.name} by ratio of groups in L_mask"
            path = stem.with_name(f"{stem.name}-ratios-{chosen.benchmark}.svg")
            charts.curve(curves, "ratio r", "mIoU", title, path, fixed=RATIO)


def _curves(rows: Sequence[dict[str, Any]], chosen: Measure) -> list[charts.Series]:
    """Mean mIoU by ratio, for each number of groups of which all ratios were measured."""
    curves = []
    for count in COUNTS:
        values = together(rows, [cell(count, ratio) for ratio in RATIOS], chosen.name)
        if all(values):
            means = list(map(statistics.mean, values))
            curves.append(charts.Series(f"{count} groups", RATIOS, means))
    return curves
