"""Parameter groups and schedules."""

import itertools
import math

import pytest
from torch import nn

from maskfree.engine.optimizers import cosine, parameter_groups, polynomial
from maskfree.hub.checkpoint import has_prefix


def network() -> nn.Module:
    parts = {"stem": nn.Conv2d(3, 4, 2), "stem2": nn.Linear(4, 5), "norm": nn.LayerNorm(5)}
    return nn.ModuleDict(parts)


def by_name(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (g["rate"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_only_matrices_decay_and_rates_follow_the_longest_prefix():
    model = network()
    groups = parameter_groups(model.named_parameters(), 0.04, {"stem": 0.1, "stem.bias": 0.2})
    assert by_name(model, groups) == {
        "stem.weight": (0.1, 0.04),
        "stem.bias": (0.2, 0.0),
        "stem2.weight": (1.0, 0.04),
        "stem2.bias": (1.0, 0.0),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
    }


def test_frozen_parameters_are_in_no_group():
    model = network()
    model["stem"].requires_grad_(False)
    names = by_name(model, parameter_groups(model.named_parameters(), 0.0, {}))
    assert len(names) == 4 and not any(name.startswith("stem.") for name in names)


def test_prefix_that_names_nothing_is_an_error():
    with pytest.raises(ValueError, match="'ste'; names begin with norm, stem, stem2"):
        parameter_groups(network().named_parameters(), 0.0, {"ste": 0.1})


def test_prefixes_end_at_a_dot():
    assert has_prefix("stem.weight", "stem") and has_prefix("stem", "stem")
    assert not has_prefix("stem2.weight", "stem")


@pytest.mark.parametrize("schedule", [cosine, polynomial])
def test_schedules_rise_linearly_then_fall_to_zero(schedule):
    factors = [schedule(step, 30, 5) for step in range(30)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a > b for a, b in itertools.pairwise(factors[4:]))
    assert factors[-1] == pytest.approx(0)
    assert factors[17] == pytest.approx(
        (1 + math.cos(math.pi * 13 / 25)) / 2 if schedule is cosine else (12 / 25) ** 0.9
    )


def test_runs_of_one_step_and_warm_ups_longer_than_the_run():
    assert cosine(0, 1) == 1
    assert cosine(1, 2, 10) == pytest.approx(0.2)
    assert cosine(9, 10, final=0.1) == pytest.approx(0.1)
