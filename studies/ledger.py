"""A study's rows: what is measured of which variant, one file for each seed, written row by row."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, benchmark
from maskfree.engine.config import Recipe
from maskfree.engine.run_state import settings_of
from maskfree.evaluation.class_free import with_unknown
from maskfree.evaluation.protocol import Protocol
from maskfree.evaluation.reporting.results import FORMAT, write_json
from maskfree.evaluation.zero_shot import EvalJob, measure
from maskfree.files.atomic import read_json
from maskfree.hub import loading
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.progress import Progress, Watch
from maskfree.run_dir import differences

Samples = Mapping[str, Sequence[AnnotatedPhoto]]
_PLACES = ("weights", "shards", "index", "images", "segments", "teacher", "prototypes")
"""Settings that are folders or files; their names are enough."""


class Named(typing.Protocol):
    """A column of a table."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...


class Figure(Named, typing.Protocol):
    """Something that is measured of a model."""

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Measure it; SAMPLES are by benchmark."""
        ...


@dataclass(frozen=True)
class Measure:
    """A benchmark and how it is measured."""

    name: str
    benchmark: str
    protocol: Protocol
    unknown: tuple[str, ...] = ()
    """Classes whose mean, and that of all others, are in the row's parts.

    The benchmark's own if empty.
    """

    def row(
        self, segmenter: Segmenter, samples: Samples, command: str, watch: Watch
    ) -> dict[str, Any]:
        """Label the benchmark's photos, and compare."""
        chosen = benchmark(self.benchmark)
        chosen = with_unknown(chosen, self.unknown) if self.unknown else chosen
        work = EvalJob(chosen, samples[self.benchmark], command, watch=watch)
        return asdict(measure(segmenter, self.protocol, work).row)


def bare(side_px: int = Inference.side_px, **settings: Any) -> Protocol:
    """Return the papers' inference: scores are neither smoothed nor changed by a class prior."""
    inference = Inference(side_px=side_px)
    return Protocol(smooth=1, class_prior=0.0, inference=inference, **settings)


@dataclass(frozen=True)
class Variant:
    """Something that a study measures."""

    name: str
    model: Callable[[], Path | str | Segmenter]
    """Makes the model if need be; returns it, its folder, or its name in the hub."""
    measures: tuple[Figure, ...]


class StudyRows:
    """The results of one seed: a row for each variant and measure, written as soon as it is there.

    SETTINGS are those of the study, beside RECIPE, on which rows depend.

    Raises:
        ValueError: the file is there and holds rows of other settings.
    """

    def __init__(
        self, path: Path, head: Mapping[str, Any], recipe: Recipe, settings: Mapping[str, Any]
    ):
        self._path = path
        self._head: dict[str, Any] = {"format": FORMAT} | dict(head)
        recipe = replace(recipe, train=replace(recipe.train, seed=0))
        self._settings = {"recipe": _portable(settings_of(recipe))} | dict(settings)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            content = read_json(path)
            old = content["settings"] | {
                "recipe": _portable(_completed(content["settings"]["recipe"], recipe))
            }
            if other := differences(old, self._settings):
                raise ValueError(
                    f"{path} holds rows of another {', '.join(other)}: choose another --results"
                )
            self.rows = {(row["variant"], row["measure"]): row for row in content["rows"]}

    def fill(
        self, variants: Iterable[Variant], samples: Samples, only: Sequence[str], device: str
    ) -> None:
        """Measure what is not there yet of VARIANTS, or of those with a name in ONLY.

        SAMPLES are by benchmark.
        """
        command = self._head["command"].partition(" --")[0]
        for variant in variants:
            if only and variant.name not in only:
                continue
            for chosen in variant.measures:
                if (variant.name, chosen.name) not in self.rows:
                    segmenter = variant.model()
                    if not isinstance(segmenter, Segmenter):
                        segmenter = loading.load(segmenter, device)
                    watch = Progress(title=f"{variant.name}, {chosen.name}")
                    row = chosen.row(segmenter, samples, command, watch)
                    parameters = sum(p.numel() for p in segmenter.method.parameters())
                    self._add(variant.name, chosen.name, {"parameters": parameters} | row)

    def _add(self, variant: str, measure: str, row: dict[str, Any]) -> None:
        self.rows[variant, measure] = {"variant": variant, "measure": measure} | row
        write_json(
            self._head | {"settings": self._settings, "rows": list(self.rows.values())}, self._path
        )


def read(results: Path, kind: str, model: str | None = None) -> list[dict[str, Any]]:
    """Read the rows of all seeds of a study of KIND, such as "reproduce-vilseg", each with its
    seed.

    With MODEL those of what was made from this model, not those of the study's own trainings.
    """
    contents = [read_json(path) for path in sorted(results.glob(f"{kind}-*.json"))]
    chosen = [each for each in contents if (each["kind"], each.get("model")) == (kind, model)]
    return [row | {"seed": content["seed"]} for content in chosen for row in content["rows"]]


def _portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out places on this machine, and the inference, which the rows' protocols say."""
    return {
        key: _without_places(key, value) for key, value in settings.items() if key != "inference"
    }


def _without_places(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_places(name, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_places(key, each) for each in value]
    return Path(value).name if key in _PLACES and isinstance(value, str) else value


def _completed(old: dict[str, Any], config: Any) -> dict[str, Any]:
    """Give settings that came after OLD was written their default, which is what was done before
    they came.
    """
    known = dict(old)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in old:
            default = (
                field.default_factory() if field.default_factory is not MISSING else field.default
            )
            known |= {} if default is MISSING else {field.name: settings_of(default)}
        elif is_dataclass(value) and isinstance(old[field.name], dict):
            known[field.name] = _completed(old[field.name], value)
    return known
