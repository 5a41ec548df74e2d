"""The debug recipe of OVSegmentor, as it is: each of its three losses falls."""

import json
import logging
from dataclasses import replace
from statistics import mean

import pytest

from maskfree.engine.train import fit
from maskfree.recipes import ovsegmentor_debug


@pytest.mark.slow
def test_all_three_losses_of_the_debug_recipe_fall(tmp_path, caplog):
    recipe = ovsegmentor_debug()
    recipe = replace(recipe, train=replace(recipe.train, accelerator="cpu"))
    with caplog.at_level(logging.WARNING):
        assert fit(recipe, tmp_path / "run") == recipe.train.steps

    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    rows = [json.loads(row) for row in text.splitlines()]
    for term, share in (("cross", 0.6), ("entity", 0.5), ("masks", 0.6)):
        values = [row["loss"][term] for row in rows if term in row["loss"]]
        assert mean(values[-3:]) < share * mean(values[:3]), (term, values)

    # Each term moves the weights: target masks are there, and completed captions are found.
    last = rows[-1]["metrics"]
    assert last["empty_targets"] < 0.3 < last["completion_accuracy"]
    assert 0.2 < last["sure_patches"] < 0.8
    assert "target masks" not in caplog.text
