"""Options of `maskfree evaluate`: protocols and changes to them, thresholds of a sweep, output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskfree.cli.common import PixelGroups, Regions, chosen_grouping

if TYPE_CHECKING:
    from maskfree.data.benchmarks.catalog import Benchmark
    from maskfree.evaluation.protocol import Protocol

MAX_THRESHOLDS = 1001
"""Largest number of background thresholds in a sweep."""


@dataclass(frozen=True)
class Changes:
    """Settings that override a protocol's own; each name set and background rule gives a row."""

    names: tuple[str, ...] = ()
    """Sets of class names of the benchmark, such as plain or synonyms."""
    background: tuple[str, ...] = ()
    """Background rules, as for `segment`; with "none" only pixels of a class are evaluated."""
    templates: str | None = None
    """Prompt templates: plain, photo or ensemble, or a prompt with {} for the class name."""
    side_px: int | None = None
    """Length in pixels to which the shorter side of a photo is resized."""
    smooth: int | None = None
    """Window width, in patches, of the spatial averaging of scores; 1 turns it off."""
    class_prior: float | None = None
    """Weight of the image-level class prior; 0 turns it off."""
    synonyms: Literal["max", "mean", "vote"] | None = None
    """Score of a class with synonyms: their max or mean, or a soft vote, the mean of their softmax
    probabilities."""
    refine: str | None = None
    """Refinement of the scores at pixel resolution: none (bilinear upsampling), pamr, crf or
    regions."""
    grouping: PixelGroups | None = None
    """What a ViL-Seg groups pixels by: clusters of its online head, kmeans of each photo, or pixels
    (nothing)."""
    regions: Regions | None = None
    """Clusters of the online head: hard, each pixel in one, or soft, in all by their probability.
    """

    def options(self, protocol: Protocol) -> list[str]:
        """Command-line options that reproduce one changed protocol.

        Args:
            protocol: A protocol that `apply` returned.

        Returns:
            Options that make it of the protocol that `apply` was given.
        """
        options = ["--names", protocol.names, "--background", protocol.background]

        # The protocol has one of the names and background rules; other settings have one value.
        for name, value in self._given().items():
            options += [f"--{name.replace('_', '-')}", str(value)]

        return options

    def apply(self, protocol: Protocol) -> list[Protocol]:
        """Apply the changes to a protocol.

        Args:
            protocol: Protocol to change.

        Returns:
            A changed protocol for each combination of background rule and name set.
        """
        given = self._given()
        in_network = {name: given.pop(name, None) for name in ("side_px", "refine", "synonyms")}
        in_network["grouping"] = chosen_grouping(
            given.pop("grouping", None), given.pop("regions", None)
        )
        inference = protocol.inference.changed(**in_network)
        changed = replace(protocol, inference=inference, **given)

        return [
            replace(changed, names=names, background=background)
            for background in self.background or (protocol.background,)
            for names in self.names or (protocol.names,)
        ]

    def _given(self) -> dict[str, Any]:
        """Settings that have one value; those that are None keep the protocol's own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["names"], values["background"]
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Planned:
    """A protocol to evaluate."""

    protocol: Protocol
    """Settings of the evaluation."""
    name: str
    """Name of the protocol in the rows of results."""
    options: tuple[str, ...]
    """Command-line options that select this protocol alone."""


@dataclass(frozen=True)
class EvaluationOutput:
    """Output options of the evaluation."""

    results: Path = Path("results")
    """Output folder for the rows of results."""
    report: bool = False
    """Also write an HTML report of errors: confusions, the ten best and the ten worst photos, and a
    reliability diagram, which is an SVG file, too."""
    photos: bool = True
    """Show photos in the report; without, it has only label maps, for photos not to be
    passed on.
    """
    chart: bool = False
    """Also write a bar chart of the IoU of each class, as SVG."""
    boundaries: bool = False
    """Also measure the boundary F-score."""
    quiet: bool = False
    """Do not show progress."""


def parse_sweep(sweep: tuple[str, str]) -> tuple[float, ...]:
    """Parse the values of --sweep.

    Args:
        sweep: "threshold" and FIRST:LAST:STEP.

    Returns:
        The thresholds, in [-1, 1].

    Raises:
        ValueError: The values are not of this form, or out of range.
    """
    what, spelled = sweep
    if what != "threshold":
        raise ValueError(f"--sweep {what!r} is unknown: only threshold can be swept")

    try:
        first, last, step = map(float, spelled.split(":"))
    except ValueError as error:
        raise ValueError(
            f"--sweep threshold {spelled!r} is not FIRST:LAST:STEP, as in 0:1:0.05"
        ) from error

    # Thresholds are compared with cosines, which lie in [-1, 1].
    if not (-1 <= first <= last <= 1 and step > 0 and (last - first) / step < MAX_THRESHOLDS):
        raise ValueError(
            f"--sweep threshold {spelled!r}: -1 <= FIRST <= LAST <= 1, and at most "
            f"{MAX_THRESHOLDS} steps above 0"
        )

    # The small term keeps the last threshold in spite of rounding errors.
    return tuple(round(first + i * step, 6) for i in range(int((last - first) / step + 1e-6) + 1))


def plan_protocols(benchmark: Benchmark, names: Sequence[str], changes: Changes) -> list[Planned]:
    """Make the protocols of the given names with the changes; changed ones are named "custom".

    Args:
        benchmark: Benchmark that is evaluated.
        names: Names of protocols.
        changes: Settings that override the protocols' own.

    Returns:
        The protocols, each once.

    Raises:
        ValueError: A name is unknown.
    """
    from maskfree.evaluation.named_protocols import PROTOCOLS

    # By protocol, so that two names for the same settings are evaluated once.
    found: dict[Protocol, Planned] = {}

    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(
                f"the protocol {name!r} is unknown: choose from {', '.join(PROTOCOLS)}"
            )

        made = PROTOCOLS[name](benchmark)
        for protocol in made:
            for changed in changes.apply(protocol):
                called = name
                if changed not in made:
                    called = "custom"

                options = ("--protocol", name, *changes.options(changed))
                found.setdefault(changed, Planned(changed, called, options))

    return list(found.values())
