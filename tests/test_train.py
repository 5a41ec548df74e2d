"""The loop: it learns, and a run that was interrupted and killed goes on as if nothing had
happened.
"""

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from kills import killed_at_each_step
from maskfree.cli import main
from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.loader import Position, Stream, build_loader
from maskfree.data.order import Share
from maskfree.distributed import launch
from maskfree.engine import run_state
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.engine.logger import MetricLogger
from maskfree.engine.train import fit
from maskfree.engine.trainer import Trainer
from maskfree.hub.loading import load
from maskfree.methods.ovsegmentor.objectives_config import MaskConfig
from maskfree.recipes import clips4_debug, ovsegmentor_debug, vilseg_debug
from maskfree.text.tokenize import Tokenizer

SMALL = {
    "steps": 6,
    "batch_size": 4,
    "warm_up_steps": 2,
    "save_every": 2,
    "log_every": 1,
    "accelerator": "cpu",
}


def small_recipe(data: dict | None = None, **changes) -> Recipe:
    recipe = vilseg_debug()
    small = replace(recipe.train, **(SMALL | changes))
    return replace(
        recipe, train=small, data=replace(recipe.data, **({"shapes": 16} | (data or {})))
    )


def small_entity_recipe(masks: MaskConfig | None, **changes) -> Recipe:
    recipe = ovsegmentor_debug()
    small = replace(recipe.train, **(SMALL | changes))
    data, method = replace(recipe.data, shapes=40), replace(recipe.method, masks=masks)
    return replace(recipe, train=small, data=data, method=method)


def losses(out: Path) -> list[tuple[int, dict[str, float]]]:
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def start_until(
    out: Path, arguments: tuple[str, ...], step: int, number: signal.Signals
) -> subprocess.Popen:
    """Run the command in another process, and send it signal NUMBER when it has reported STEP."""
    code = "import sys; from maskfree.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = out / "metrics.jsonl"
    while process.poll() is None and not (rows.exists() and f'"step": {step},' in rows.read_text()):
        time.sleep(0.01)
    process.send_signal(number)
    return process


def test_interrupted_and_killed_run_has_the_losses_of_an_undisturbed_one(tmp_path):
    settings = (
        "--data.shapes 24 --train.batch-size 4 --train.accumulate 2 "
        "--train.log-every 1 --train.accelerator cpu"
    )
    settings += " --train.steps 40 --train.save-every 3 --data.workers 2 --data.shuffle-buffer 7"
    command = ("train", "vilseg_debug", *settings.split())
    assert run_command(*command, "--out", str(tmp_path / "whole")) == 0

    out = tmp_path / "stopped"
    process = start_until(out, (*command, "--out", str(out)), 4, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert messages.splitlines()[-1].endswith("--resume")
    interrupted_after = losses(out)[-1][0]
    assert run_state.load_state(out)[0] == interrupted_after >= 4

    process = start_until(
        out, (*command, "--out", str(out), "--resume"), interrupted_after + 5, signal.SIGKILL
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert losses(out)[-1][0] < 40

    assert run_command(*command, "--out", str(out), "--resume") == 0
    assert losses(out) == losses(tmp_path / "whole")
    weights = [
        load_file(run / "model" / "weights.safetensors") for run in (out, tmp_path / "whole")
    ]
    assert_close(*weights, atol=0, rtol=0)


def test_run_learns_and_its_model_segments(tmp_path):
    recipe = small_recipe(
        {"shapes": 64},
        steps=60,
        batch_size=16,
        learning_rate=3e-3,
        save_every=60,
        average_decay=0.0,
    )
    assert fit(recipe, tmp_path) == 60
    crosses = [loss["cross"] for _, loss in losses(tmp_path)]
    assert sum(crosses[-5:]) / 5 < 0.75 * crosses[0]
    record = run_state.read_record(tmp_path)
    assert (
        record["settings"]["train"]["steps"] == 60
        and record["settings"]["method"]["class"] == "ViLSegConfig"
    )
    assert "torch" in record["versions"] and "git" in record
    result = load(str(tmp_path / "model")).with_words(["red circle", "white wall"])(
        torch.zeros(70, 90, 3).numpy()
    )
    assert result.labels.shape == (70, 90)
    metrics = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    assert 1 <= metrics["clusters_in_use"] <= 8


def test_only_the_last_two_states_stay_and_nothing_unfinished(tmp_path):
    fit(small_recipe(), tmp_path)
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
    assert not list(tmp_path.rglob(".maskfree-*"))
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_state_can_be_read_whenever_saving_one_is_killed(tmp_path):
    def save(step: int) -> None:
        run_state.save_state(tmp_path, step, {"weights": torch.full((3,), float(step))})

    save(1)
    save(2)
    seen = []
    for _ in killed_at_each_step(lambda: save(3)):
        step, tensors = run_state.load_state(tmp_path)
        assert tensors["weights"].tolist() == [float(step)] * 3
        seen.append(step)
        save(4)
        assert not list((tmp_path / "state").glob(".*")), "leftovers"
        shutil.rmtree(tmp_path / "state")
        save(1)
        save(2)
    assert seen == sorted(seen) and set(seen) == {2, 3}


def test_a_full_disk_is_one_line_with_the_path(tmp_path, largest_file, capsys):
    arguments = (
        "train vilseg_debug --data.shapes 16 --train.batch-size "
        "4 --train.steps 2 --train.accelerator cpu"
    )
    arguments += " --train.save-every 1 --data.workers 0"
    out = tmp_path / "run"
    with largest_file(200_000):  # what is drawn fits, a state does not
        assert run_command(*arguments.split(), "--out", str(out)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert errors == [
        f"maskfree: error: cannot write {out / 'state' / 'step-00000001'}: File too large"
    ]
    assert not list(out.rglob(".maskfree-*"))


def test_a_full_disk_is_no_traceback_of_the_monitor(tmp_path, largest_file, capsys):
    """TensorBoard writes in a thread of its own."""
    monitor = MetricLogger(tmp_path, 1000, 0, 4)
    with (
        largest_file(3000),
        pytest.raises(OSError, match=r"^cannot write .*/tensorboard: File too large$"),
    ):
        for step in range(1, 1000):
            monitor.record(step, dict.fromkeys("abcdefghijklmnopqrst", 0.5), {}, 0.1, 0)
            time.sleep(0.01)
    with pytest.raises(OSError, match=r"^cannot write .*/tensorboard: File too large$"):
        monitor.close()
    assert "Traceback" not in capsys.readouterr().err


def test_existing_run_is_not_overwritten_and_settings_must_match(tmp_path):
    recipe = small_recipe(steps=2)
    fit(recipe, tmp_path)
    with pytest.raises(ValueError, match="holds a run already: continue it with --resume"):
        fit(recipe, tmp_path)
    changed = replace(
        recipe,
        train=replace(recipe.train, seed=3, log_every=2),
        data=replace(recipe.data, shuffle_buffer=1),
    )
    with pytest.raises(
        ValueError, match=r"begun with another data\.shuffle_buffer, train\.seed: give another"
    ):
        fit(changed, tmp_path, resume_run=True)
    with pytest.raises(ValueError, match="nothing to resume"):
        fit(recipe, tmp_path / "none", resume_run=True)
    assert not (tmp_path / "none").exists()
    before = losses(tmp_path)
    assert (
        fit(replace(recipe, train=replace(recipe.train, log_every=2)), tmp_path, resume_run=True)
        == 2
    )
    assert losses(tmp_path) == before


def test_run_killed_before_its_first_state_starts_again(tmp_path):
    recipe = small_recipe(steps=2)
    run_state.write_record(tmp_path, recipe.name, run_state.settings_of(recipe), 1)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": {}}\n{"step": 2, "lo')
    assert fit(recipe, tmp_path, resume_run=True) == 2
    assert [step for step, _ in losses(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 5, "accumulate": 2}, "train.batch_size 5 does not divide"),
        ({"learning_rate": 1e30, "steps": 30}, "the gradient is nan in step .* 10 in a row"),
        ({"frozen": ("imag",), "frozen_steps": 1}, "no trainable parameter is named 'imag'"),
        ({"lr_multipliers": (("nothing", 0.5),)}, "no trainable parameter is named 'nothing'"),
    ],
)
def test_runs_that_cannot_work_say_why(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words) as raised:
        fit(small_recipe(**changes), tmp_path)
    assert "\n" not in str(raised.value)


def test_run_that_could_not_start_leaves_no_record(tmp_path):
    for data in (
        {"shapes": 0, "shards": (str(tmp_path / "none.tar"),)},
        {"shapes": 0, "images": ("none",)},
    ):
        recipe = small_recipe(data)
        shapes.write(tmp_path / "data", 4)
        recipe = replace(recipe, method=replace(recipe.method, tokenizer=str(tmp_path / "data")))
        with pytest.raises(FileNotFoundError, match="none"):
            fit(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "train.steps is 0"),
        ({"average_decay": 1.0}, "train.average_decay is 1.0"),
        ({"devices": "many"}, "train.devices is 'many'"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**settings).check()


def test_unlabeled_photos_train_what_needs_no_captions(tmp_path, photo):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        photo((60 + number, 50)).save(tmp_path / "photos" / f"{number}.png")
    fit(small_recipe(steps=1), tmp_path / "first")  # for its tokenizer
    recipe = small_recipe({"shapes": 0, "images": (str(tmp_path / "photos"),)}, steps=3)
    recipe = replace(
        recipe, method=replace(recipe.method, tokenizer=str(tmp_path / "first" / "data"))
    )
    assert fit(recipe, tmp_path / "run") == 3
    assert losses(tmp_path / "run")[-1][1].keys() == {"total", "vision", "cluster"}


def test_the_end_of_a_run_says_what_was_left_out_and_why(tmp_path, caplog):
    fit(small_recipe(steps=1), tmp_path / "first")  # for its shards and tokenizer
    data = tmp_path / "first" / "data"
    entries = [
        ("a.jpg", b"no photo"),
        ("a.txt", b"a dog"),
        ("b.txt", b"a dog"),
        ("c.txt", b"a dog"),
    ]
    for number, shard in enumerate(sorted(data.glob("*.tar"))):
        with tarfile.open(shard, "a") as tar:
            for name, content in entries:
                info = tarfile.TarInfo(f"odd{number}{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    recipe = small_recipe(
        {"shapes": 0, "shards": (str(data),), "workers": 0, "shuffle_buffer": 1}, steps=4
    )
    recipe = replace(recipe, method=replace(recipe.method, tokenizer=str(data)))
    caplog.set_level(logging.INFO)

    fit(recipe, tmp_path / "run")
    told = next(
        line for line in caplog.messages if line.startswith("samples left out, in all passes: ")
    )
    reasons = dict(part.split(" ", 1)[::-1] for part in told.partition(": ")[2].split(", "))
    rows = [
        json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert set(reasons) == {"no photo", "unreadable photo"}
    assert sum(map(int, reasons.values())) == rows[-1]["broken"] > 0


def test_half_precision_trains(tmp_path):
    fit(small_recipe(steps=2, precision="bf16-mixed", average_decay=0.5, accumulate=2), tmp_path)
    weights = load_file(tmp_path / "model" / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {
        torch.float32
    }


def trainer_of(**changes) -> Trainer:
    recipe = small_recipe(**changes)
    torch.manual_seed(0)
    return Trainer(launch("cpu"), recipe.method.build(), recipe.train, num_streams=1)


def batches_of(recipe: Recipe, out: Path):
    shapes.write(out / "data", 16)
    data = DataConfig(shards=(str(out / "data"),), workers=0)
    transform = recipe.method.build_transform(Tokenizer.from_source(str(out / "data")))
    return iter(build_loader(Stream(data, transform, 4, 0, Share(0, 1)), 0))


def snapshot(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.method.named_parameters()}


def test_frozen_parts_stay_until_they_thaw_and_rates_scale(tmp_path):
    trainer = trainer_of(
        frozen=("image.encoder",), frozen_steps=2, lr_multipliers=(("text", 0.0),), warm_up_steps=0
    )
    batches = batches_of(small_recipe(), tmp_path)
    start = snapshot(trainer)
    moved = []
    for _ in range(3):
        trainer.train_step(batches)
        now = snapshot(trainer)
        changed = {name for name in now if not torch.equal(now[name], start[name])}
        moved.append(
            (
                any(n.startswith("image.encoder") for n in changed),
                any(n.startswith("text") for n in changed),
            )
        )
        assert any(n.startswith("image.projection") for n in changed)
    assert moved == [(False, False), (False, False), (True, False)]


def test_average_follows_the_weights(tmp_path):
    trainer = trainer_of(average_decay=0.9)
    expected = snapshot(trainer)
    batches = batches_of(small_recipe(), tmp_path)
    for step in range(3):
        trainer.train_step(batches)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {
            name: decay * expected[name] + (1 - decay) * value
            for name, value in snapshot(trainer).items()
        }
    before = snapshot(trainer)
    final = trainer.final_weights()
    trained = [name for name, value in trainer.method.named_parameters() if value.requires_grad]
    assert_close(
        {name: final[name] for name in trained}, {name: expected[name] for name in trained}
    )
    # Training goes on with its own weights.
    assert_close(snapshot(trainer), before, atol=0, rtol=0)
    assert any(not torch.equal(final[name], before[name]) for name in trained)


def test_state_comes_back_whole(tmp_path):
    trainer, other = trainer_of(average_decay=0.9), trainer_of(average_decay=0.9)
    batches = batches_of(small_recipe(), tmp_path)
    trainer.train_step(batches)
    run_state.save_state(tmp_path, 1, trainer.tensors())
    step, tensors = run_state.load_state(tmp_path)
    other.restore(tensors)
    other.step = step
    following = [next(batches), next(batches)]
    assert_close(
        trainer.train_step(iter(following)), other.train_step(iter(following)), atol=0, rtol=0
    )
    assert_close(trainer.tensors(), other.tensors(), atol=0, rtol=0)


def test_the_counts_of_samples_left_out_come_back_with_a_state():
    trainer, other, older = trainer_of(), trainer_of(), trainer_of()
    trainer.positions = [Position(1, 7, 5, (0, 2, 3, 0, 0, 0))]
    tensors = trainer.tensors()
    other.restore(tensors)
    assert other.positions == trainer.positions and other.broken() == (5, (0, 2, 3, 0, 0, 0))
    older.restore(
        {name: tensor for name, tensor in tensors.items() if name != "left_out"}
    )  # of an earlier version
    assert older.broken() == (5, (0,) * 6)


def test_clipping_bounds_the_gradient(tmp_path):
    trainer = trainer_of(clip_norm=1e-3)
    norms = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.nn.utils.get_total_norm([w.grad for w in trainer._trained.values()]).item()
        )
    )
    trainer.train_step(batches_of(small_recipe(), tmp_path))
    assert norms == pytest.approx([1e-3], rel=1e-3)


def test_monitor_drops_rows_that_will_be_written_again(tmp_path, caplog):
    for first, last in ((0, 3), (2, 4)):
        monitor = MetricLogger(tmp_path, 4, first, photos_per_step=8)
        with caplog.at_level("INFO"):
            for step in range(first + 1, last + 1):
                monitor.record(step, {"total": 1.0 * step}, {"entropy": 0.5}, 1e-3, broken=2)
        monitor.close()
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4]
    assert all(
        word in caplog.messages[-1]
        for word in ("step 4/4", "entropy", "2 broken", "photos/s", "left")
    )


def test_a_run_starts_from_a_checkpoint(tmp_path, caplog):
    """The old weights come along, the head that the older model has not is new, and the tokenizer
    is the older's.
    """
    first = small_recipe(steps=1)
    fit(
        replace(first, method=replace(first.method, cluster=None, grouping="pixels")),
        tmp_path / "first",
    )
    recipe = replace(
        small_recipe(steps=1, learning_rate=1e-9), init=str(tmp_path / "first" / "model")
    )
    method = replace(recipe.method, vision=None)
    with caplog.at_level("INFO"):
        fit(replace(recipe, method=method), tmp_path / "second")
    assert "new are cluster.head" in caplog.text
    old, new = (
        load_file(tmp_path / run / "model" / "weights.safetensors") for run in ("first", "second")
    )
    assert new.keys() - old.keys() == {
        "cluster.head.convolution.bias",
        "cluster.head.convolution.weight",
    }
    for name, weight in old.items():
        assert torch.allclose(weight, new[name], atol=1e-6), name
    tokenizers = [
        (tmp_path / run / "model" / "tokenizer.json").read_text() for run in ("first", "second")
    ]
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.parametrize(
    ("init", "message"),
    [("nowhere", "the model 'nowhere' is unknown"), ("empty", "no tokenizer file empty")],
)
def test_a_start_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch, init, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        fit(replace(small_recipe(), init=init), tmp_path / "run")


def test_a_start_with_other_shapes_is_refused(tmp_path):
    first = small_recipe(steps=1)
    fit(first, tmp_path / "first")
    wider = replace(first.method, cluster=replace(first.method.cluster, num_clusters=9))
    with pytest.raises(ValueError, match=r"cluster\.head\.convolution\.\w+ is \(8,"):
        fit(
            replace(first, method=wider, init=str(tmp_path / "first" / "model")),
            tmp_path / "second",
        )


def test_a_run_with_entities_goes_on_as_if_nothing_had_been(tmp_path):
    recipe = small_entity_recipe(MaskConfig(start=0.5))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert fit(recipe, whole) == 6
    terms = [set(loss) - {"total", "cross", "entity"} for _, loss in losses(whole)]
    assert terms == [set()] * 3 + [{"masks"}] * 3

    shutil.copytree(whole, stopped)
    for lost in ("model", "state/step-00000006"):
        shutil.rmtree(stopped / lost)
    assert fit(recipe, stopped, resume_run=True) == 6
    assert losses(stopped) == losses(whole)
    weights = [load_file(run / "model" / "weights.safetensors") for run in (stopped, whole)]
    assert_close(*weights, atol=0, rtol=0)


def test_a_run_with_a_memory_goes_on_as_if_nothing_had_been(tmp_path):
    recipe = clips4_debug()
    recipe = replace(
        recipe, data=replace(recipe.data, shapes=16), train=replace(recipe.train, **SMALL)
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert fit(recipe, whole) == 6
    shutil.copytree(whole, stopped)
    for lost in ("model", "state/step-00000006"):
        shutil.rmtree(stopped / lost)
    assert int(run_state.load_state(stopped)[1]["model/contrast.sizes"][0]) > 0
    assert fit(recipe, stopped, resume_run=True) == 6
    assert losses(stopped) == losses(whole)
    weights = [load_file(run / "model" / "weights.safetensors") for run in (stopped, whole)]
    assert_close(*weights, atol=0, rtol=0)


def test_a_second_stage_starts_with_all_that_the_first_one_had(tmp_path, caplog):
    first = small_entity_recipe(None, steps=2, average_decay=0.0)
    fit(first, tmp_path / "first")
    init = str(tmp_path / "first")
    second = replace(
        small_entity_recipe(MaskConfig(start=0.0), steps=1, learning_rate=1e-9), init=init
    )
    with caplog.at_level("INFO"):
        fit(second, tmp_path / "second")
    new = next(message for message in caplog.messages if message.startswith("starting from"))
    assert "masks.teacher" in new and "entity" not in new
    (_, old), (_, now) = (run_state.load_state(tmp_path / run) for run in ("first", "second"))
    kept = [name for name in old if name.startswith("model/")]
    assert any(name.startswith("model/entity.decoder.") for name in kept)
    for name in kept:
        assert torch.allclose(old[name], now[name], atol=1e-6), name
        if name.startswith("model/image."):
            assert torch.allclose(
                old[name], now[name.replace("image.", "masks.teacher.", 1)], atol=1e-6
            ), name
    assert losses(tmp_path / "second")[0][1].keys() == {"total", "cross", "entity", "masks"}


@pytest.mark.slow
def test_a_run_with_entities_learns_which_caption_is_whose(tmp_path):
    recipe = small_entity_recipe(
        None, steps=70, batch_size=16, learning_rate=3e-3, warm_up_steps=7, save_every=70
    )
    fit(replace(recipe, data=replace(recipe.data, shapes=64)), tmp_path)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = rows[-10:]
    assert sum(row["loss"]["cross"] for row in last) / 10 < 0.6 * rows[0]["loss"]["cross"]
    assert sum(row["metrics"]["retrieval_accuracy"] for row in last) / 10 > 4 / 16
