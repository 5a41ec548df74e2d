"""The benchmark scripts: fair timing, targets, results files, and what they time and count."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskfree.config.rules import outside_names
from maskfree.recipes import RECIPES
from maskfree.text.background import Background

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """`script("harness")` is that script as a module, as it sees its neighbors when run."""
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
    path = harness.report(
        "x", {"a": 0.5}, [harness.Ratio("a over b", 2.0, "at least 2")], {"n": 3}, tmp_path
    )
    content = json.loads(path.read_text())
    assert path.name == "benchmark-x.json"
    assert content["ratios"] == [
        {"name": "a over b", "value": 2.0, "target": "at least 2", "unit": "x", "met": True}
    ]
    assert content["seconds"] == {"a": 0.5}
    assert {"command", "date", "versions", "machine", "settings"} <= set(content)
    assert "met" in capsys.readouterr().out


def test_the_evaluation_script_counts_as_others_do_and_times_every_step(
    script, tiny_checkpoint, photo, tmp_path
):
    evaluation = script("evaluation")
    photo((48, 40)).save(tmp_path / "p.jpg")
    evaluation.main(
        str(tiny_checkpoint), tmp_path / "p.jpg", side_px=32, repeats=1, results=tmp_path
    )
    content = json.loads((tmp_path / "benchmark-evaluation.json").read_text())
    assert content["settings"]["network_input"] == [1, 3, 32, 32]
    assert {"whole, per photo", "network", "decode", "label map", "truth", "confusion"} <= set(
        content["seconds"]
    )
    first, *others = content["ratios"]
    assert first["value"] < 1
    assert "scikit-learn over confusion" in [ratio["name"] for ratio in others]


def test_the_matching_script_compares_both_ways_for_every_size(script, tmp_path):
    script("matching").main(batches=(3,), groups=(2, 4), dim=9, repeats=1, results=tmp_path)
    content = json.loads((tmp_path / "benchmark-matching.json").read_text())
    assert {"one call: 3 photos, 2 masks, cpu", "loop: 3 photos, 4 masks, cpu"} <= set(
        content["seconds"]
    )
    assert all(ratio["value"] > 0 for ratio in content["ratios"])


def test_the_training_step_script_compares_speed_and_memory_term_by_term(
    script, monkeypatch, tmp_path
):
    train_step = script("train_step")
    sizes = {
        "GroupViT": 100,
        "GroupViT with our linear layers": 100,
        "caption, released form": 80,
        "+ masks one way, released form": 90,
    }
    monkeypatch.setattr(
        train_step, "_in_fresh_process", lambda name, *_: {"whole": sizes[name], "own": 1}
    )
    train_step.main(
        batch_size=2, side_px=32, repeats=1, variants=tuple(sizes)[2:], results=tmp_path
    )
    content = json.loads((tmp_path / "benchmark-train-step.json").read_text())
    seconds, ratios = content["seconds"], {ratio["name"]: ratio for ratio in content["ratios"]}
    assert list(seconds) == list(sizes)
    assert content["rows"][2]["photos_per_second"] == pytest.approx(
        2 / seconds["caption, released form"]
    )
    speed = ratios["photos a second over GroupViT's: caption, released form"]
    assert speed["value"] == pytest.approx(seconds["GroupViT"] / seconds["caption, released form"])
    assert speed["target"] == "at least 1.3"
    same = ratios["photos a second over GroupViT with our linear layers: caption, released form"]
    assert same["value"] == pytest.approx(
        seconds["GroupViT with our linear layers"] / seconds["caption, released form"]
    )
    assert ratios["peak memory over GroupViT's: caption, released form"]["value"] == pytest.approx(
        0.8
    )
    cost = ratios["time over the caption loss alone: + masks one way, released form"]["value"]
    assert cost == pytest.approx(
        seconds["+ masks one way, released form"] / seconds["caption, released form"]
    )


@pytest.mark.parametrize(
    ("variant", "terms"),
    [
        ("caption, released form", {"cross"}),
        ("all three, paper's form", {"cross", "entity", "masks"}),
    ],
)
def test_a_variant_of_the_training_step_has_the_terms_of_its_name(script, variant, terms):
    train_step = script("train_step")
    work = train_step.EvalJob(batch_size=2, side_px=32, device="cpu", precision="float32")
    config = train_step.ours(work.side_px)[variant]
    losses = config.build().train()(train_step._batch(config, work))
    assert set(losses.terms) == terms


@pytest.fixture
def gpu_check(script):
    return script("gpu_check")


def test_the_gpu_check_steps_each_recipe(gpu_check, tmp_path, capsys):
    gpu_check.main(small=True, steps=1, out=tmp_path)
    rows = json.loads((tmp_path / "benchmark-gpu-check.json").read_text())["rows"]
    assert [row["recipe"] for row in rows] == ["vilseg", "ovsegmentor", "clips4"]
    for row in rows:
        assert row["photos"] == 4 and row["peak_gigabytes"] > 0
        assert row["photos_per_second"] == pytest.approx(4 / row["seconds_per_step"])
    printed = capsys.readouterr().out
    assert all(
        f"{row['recipe']}: {row['photos_per_second']:.1f} photos/s" in printed for row in rows
    )


def test_the_gpu_check_says_what_does_not_fit(gpu_check, tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_check, "timed_step", full)
    gpu_check.main(recipes=("vilseg",), photos=3, small=True, out=tmp_path)
    (row,) = json.loads((tmp_path / "benchmark-gpu-check.json").read_text())["rows"]
    assert row["photos"] == 3 and row["photos_per_second"] is None
    assert "vilseg: out of memory" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["vilseg", "ovsegmentor", "clips4"])
def test_the_gpu_check_reads_nothing_from_outside(gpu_check, tmp_path, name):
    """At full size; what remains is written by the script itself."""
    recipe = gpu_check.without_files(RECIPES[name](), tmp_path)
    own = {"teacher", "prototypes"} if name == "clips4" else set()
    assert set(outside_names(recipe.method)) - {"entities", "tokenizer"} == own
    masks = getattr(recipe.method, "masks", None)
    assert masks is None or masks.start == 0


def test_make_has_the_gpu_check(gpu_check):
    makefile = (SCRIPTS.parent / "Makefile").read_text()
    assert "timeout 360 python benchmarks/gpu_check.py\n" in makefile


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the resident set is in /proc")
def test_the_peak_of_a_fresh_process_does_not_begin_at_this_one(script):
    train_step = script("train_step")
    here = torch.ones(2**29)  # 2 GiB
    work = train_step.EvalJob(batch_size=2, side_px=32, device="cpu", precision="float32")
    peak = train_step._in_fresh_process("caption, released form", work, threads=1)
    assert 0 < peak["own"] < peak["whole"] < here.nbytes


def test_the_grouping_script_compares_speed_and_memory_of_ways_that_agree(
    script, monkeypatch, tmp_path
):
    grouping = script("grouping")
    monkeypatch.setattr(
        grouping, "_in_fresh_process", lambda name, *_: {grouping.TABLE: 30}.get(name, 10)
    )
    work = grouping.EvalJob(views=4, side=9, dim=7, segments=4, iterations=3, remembered=5)
    grouping.main(work, repeats=1, results=tmp_path)
    content = json.loads((tmp_path / "benchmark-grouping.json").read_text())
    seconds, ratios = (
        content["seconds"],
        {ratio["name"]: ratio["value"] for ratio in content["ratios"]},
    )
    assert list(seconds) == [
        grouping.OURS,
        grouping.PEER,
        grouping.BLOCKS,
        grouping.LOOP,
        grouping.TABLE,
    ]
    assert (
        ratios[f"time over ours, {grouping.LOOP}"]
        == seconds[grouping.LOOP] / seconds[grouping.BLOCKS]
    )
    least, most = (
        ratios[f"time over ours, {grouping.PEER}, {which} of 3 rounds"]
        for which in ("least", "most")
    )
    assert 0 < least <= most
    assert ratios[f"peak memory over ours, {grouping.TABLE}"] == 3
    assert content["settings"]["pixels"] == 4 * 81
    ours, theirs = content["settings"]["mean_cosine_to_center"].values()
    assert abs(ours - theirs) < 0.05


def test_the_script_of_a_dense_clip_labels_patches_as_the_method_does(script, monkeypatch):
    from maskfree.nn.dense_clip_config import DenseClipConfig
    from tiny import TINY_CLIP_VISION, tiny_maskclip_config

    dense_clip = script("dense_clip")
    monkeypatch.setattr(dense_clip, "SESSIONS", {})
    image = DenseClipConfig(architecture={**TINY_CLIP_VISION, "projection_dim": 18})
    method = tiny_maskclip_config(image=image).build().eval()
    photos = [torch.rand(1, 3, 32, 48) for _ in range(3)]
    with torch.inference_mode():
        classes = dense_clip.directions(method, photos, 7)
        torch.testing.assert_close(classes.norm(dim=1), torch.ones(7))
        words = method.read_words(classes)
        steps = dense_clip.steps_of(method, method, words, Path("none"), (32, 48))
        cpu, wall, labels = dense_clip.in_turn(steps, photos)
        whole = [method.segment(photo, classes)[0].argmax(0).flatten() for photo in photos]
    assert all(torch.equal(one, other) for one, other in zip(labels["torch"], whole, strict=True))
    assert set(cpu) == set(wall) == {"torch with MKL", "torch", "torch bf16"}
    assert len(torch.cat(whole).unique()) > 1


def test_the_script_of_number_formats_counts_labels_of_all_photos(script):
    precision = script("precision")
    labels = {"fp32": [[0, 1], [2, 2]], "bf16 autocast": [[0, 3], [2, 2]]}

    def variant(name):
        return lambda photo: SimpleNamespace(labels=np.array(labels[name][photo]))

    formats = {name: precision.FORMATS[name] for name in labels}
    found = precision.labels_changed({name: variant(name) for name in labels}, formats, [0, 1])
    assert found == {"fp32": [0, 0], "bf16 autocast": [0.5, 0]}


def test_the_script_of_few_words_looks_at_a_photo_once_for_all_words(script):
    few_words = script("few_words")
    looked = []

    def group(images):
        looked.append(images.shape)
        return images * 2

    remembered = few_words._remembered(group)
    first, second = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 4, 5)
    for images in (first, first.clone(), second, second, first):
        assert (remembered(images) == images * 2).all()
    assert len(looked) == 3


def test_the_words_that_the_script_of_few_words_adds_are_no_classes(script):
    few_words = script("few_words")
    rule = Background.parse(few_words.rule_text("more words", ["road", "cat"]))
    assert len(rule.words) == len(few_words.MORE_WORDS) - 1
    assert ("road",) not in rule.words
    assert [few_words.rule_text(each, ["road"]) for each in ("none", "scene", "auto")] == [
        "none",
        "scene",
        "auto",
    ]
