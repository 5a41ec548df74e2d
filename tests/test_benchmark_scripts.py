"""The benchmark scripts: fair timing, targets, results files, and what they time and count."""

import importlib
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """`script("harness")` is that script as a module, as it sees its neighbours when run."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(SCRIPTS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def test_candidates_take_turns_and_the_warm_up_does_not_count(script, monkeypatch):
    harness = script("harness")
    clock = [0.0]
    order = []

    def work(name, durations):
        left = iter(durations)

        def run():
            order.append(name)
            clock[0] += next(left)

        return run

    monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])
    quick, slow = work("quick", [50, 1, 2, 9]), work("slow", [50, 10, 30, 20])
    seconds = harness.median_seconds({"quick": quick, "slow": slow}, repeats=3, warm_up=1)
    assert seconds == {"quick": 2, "slow": 20}
    assert order == ["quick", "slow"] * 4


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [
        (1.3, "at most 1.35", True),
        (1.4, "at most 1.35", False),
        (2.0, "at least 2", True),
        (1.9, "at least 2", False),
        (5.0, "", None),
    ],
)
def test_a_ratio_says_whether_its_target_is_met(script, value, target, met):
    assert script("harness").Ratio("r", value, target).met is met


def test_a_report_writes_what_the_figures_depend_on(script, tmp_path, capsys):
    harness = script("harness")
    path = harness.report("x", {"a": 0.5}, [harness.Ratio("a over b", 2.0, "at least 2")], {"n": 3}, tmp_path)
    content = json.loads(path.read_text())
    assert path.name == "benchmark-x.json"
    assert content["ratios"] == [{"name": "a over b", "value": 2.0, "target": "at least 2", "unit": "x", "met": True}]
    assert content["seconds"] == {"a": 0.5}
    assert {"command", "date", "versions", "machine", "settings"} <= set(content)
    assert "met" in capsys.readouterr().out


def test_the_evaluation_script_counts_as_others_do_and_times_every_step(script, tiny_checkpoint, photo, tmp_path):
    evaluation = script("evaluation")
    photo((48, 40)).save(tmp_path / "p.jpg")
    evaluation.main(str(tiny_checkpoint), tmp_path / "p.jpg", side_px=32, repeats=1, results=tmp_path)
    content = json.loads((tmp_path / "benchmark-evaluation.json").read_text())
    assert content["settings"]["network_input"] == [1, 3, 32, 32]
    assert {"whole, per photo", "network", "decode", "label map", "truth", "confusion"} <= set(content["seconds"])
    first, *others = content["ratios"]
    assert first["value"] < 1
    assert "scikit-learn over confusion" in [ratio["name"] for ratio in others]
