"""The benchmark scripts: fair timing, targets, results files, and the ablation from training to table."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from maskfree.data.benchmarks import benchmark

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


@pytest.fixture
def coco_root(tmp_path, photo):
    """Two photos with a person in the left upper quarter."""
    root = tmp_path / "coco"
    (root / "images").mkdir(parents=True)
    for i in (1, 2):
        photo((64, 48)).save(root / "images" / f"{i}.jpg")
    square = [[0, 0, 32, 0, 32, 24, 0, 24]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(benchmark("coco-mini-80").words())],
        "annotations": [{"image_id": i, "category_id": 0, "area": 768, "segmentation": square} for i in (1, 2)],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_the_ablation_trains_measures_and_goes_on(script, coco_root, tmp_path, monkeypatch, capsys):
    ablation = script("ablation")
    trained = []

    def counted(recipe, *arguments, **keywords):
        trained.append(recipe.name)
        return fit(recipe, *arguments, **keywords)

    fit = ablation.fit
    monkeypatch.setattr(ablation, "fit", counted)
    results = tmp_path / "results"

    def run(*more):
        options = ["--data", coco_root, "--out", tmp_path / "runs", "--results", results, "--side-px", 64]
        steps = ["--recipe.train.steps", 2, "--recipe.train.batch-size", 4, "--recipe.data.shapes", 20]
        arguments = ["ablation.py", "vilseg_debug", *options, *steps, "--head-steps", 2, "--names", "plain", *more]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        ablation.main()
        return json.loads((results / "ablation.json").read_text())["rows"]

    rows = run("--clusters", 5)
    assert [row["variant"] for row in rows] == [
        "full",
        "without L_vision",
        "without L_cluster, per pixel",
        "K-means instead of the head",
        "C = 5",
    ]
    assert trained == ["vilseg-debug-full", "vilseg-debug-without-vision"]
    parameters = {row["variant"]: row["parameters"] for row in rows}
    per_cluster = 32 + 1  # weights and bias of the head's 1x1 convolution on 32 dimensions
    assert parameters["full"] - parameters["without L_cluster, per pixel"] == 8 * per_cluster
    assert parameters["full"] - parameters["C = 5"] == 3 * per_cluster
    assert len({row["weights_sha256"] for row in rows}) == 4  # K-means and per pixel: the same weights

    again = run("--clusters", 5, 7)
    assert again[:5] == rows
    assert [row["variant"] for row in again[5:]] == ["C = 7"]
    assert len(trained) == 2
    assert "C = 7" in capsys.readouterr().out

    with pytest.raises(SystemExit, match=r"holds rows of another recipe.train.learning_rate"):
        run("--recipe.train.learning-rate", 0.5)
