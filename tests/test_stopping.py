"""Signals and kills: what a launcher, a terminal or the kernel may do to a training
loses no step.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from maskfree import signals
from maskfree.cli import COMMANDS, main
from maskfree.cli.evaluate import KINDS as EVALUATED
from maskfree.cli.prepare import KINDS as PREPARED
from maskfree.engine import run_state
from maskfree.engine.train import fit
from maskfree.run_dir import held
from maskfree.signals import Stopped, StopSignals
from stopping import (
    COMMAND,
    PAUSING,
    children,
    has_step,
    is_alive,
    losses,
    send_to_group,
    start,
    wait_for,
)
from test_train import small_recipe

SETTINGS = (
    *(
        "--data.shapes",
        24,
        "--data.workers",
        2,
        "--data.shuffle-buffer",
        7,
        "--train.batch-size",
        4,
    ),
    *(
        "--train.steps",
        6,
        "--train.save-every",
        50,
        "--train.log-every",
        1,
        "--train.accelerator",
        "cpu",
    ),
)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def assert_same_result(out: Path, whole: Path) -> None:
    assert losses(out) == losses(whole)
    weights = [load_file(run / "model" / "weights.safetensors") for run in (out, whole)]
    assert_close(*weights, atol=0, rtol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run("train", "vilseg_debug", *SETTINGS, "--out", out) == 0
    return out


TO_GROUP = [
    pytest.param(signal.SIGTERM, (), id="SIGTERM"),
    pytest.param(signal.SIGINT, (), id="SIGINT", marks=pytest.mark.slow),
    pytest.param(
        signal.SIGTERM, ("timeout", "-s", "TERM", "300"), id="timeout", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("number", "launcher"), TO_GROUP)
def test_a_signal_to_the_whole_group_loses_no_step(tmp_path, whole, number, launcher):
    if launcher and not shutil.which(launcher[0]):
        pytest.skip(f"there is no command {launcher[0]}")
    out, go = tmp_path / "run", tmp_path / "go"
    code = PAUSING.format(step=3, go=str(go)) + COMMAND
    process = start(code, "train", "vilseg_debug", *SETTINGS, "--out", out, launcher=launcher)
    wait_for(lambda: has_step(out, 3), process)
    # `timeout` passes the signal on to its command, and again to the group
    process.send_signal(number) if launcher else send_to_group(process, number)
    time.sleep(0.2)
    go.touch()
    began = time.monotonic()
    _, messages = process.communicate(timeout=60)

    assert process.returncode == 128 + number, messages
    assert time.monotonic() - began < 10
    assert "Traceback" not in messages
    last = messages.splitlines()[-1]
    assert last.startswith(
        f"maskfree: stopped by {number.name}: step 3 of 6 is saved; to go on: maskfree train"
    )
    assert last.endswith("--resume")
    assert run_state.load_state(out)[0] == 3
    assert run("train", "vilseg_debug", *SETTINGS, "--out", out, "--resume") == 0
    assert_same_result(out, whole)


def test_torchrun_stops_all_ranks_together(tmp_path):
    """First one rank alone is told to stop, then the whole group of processes, then the run goes on
    to its end.
    """
    script = str(Path(__file__).with_name("stopped_processes.py"))
    torchrun = (
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        script,
        str(tmp_path),
    )
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, *torchrun],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    wait_for(lambda: has_step(out, 2), process)
    os.kill(int((tmp_path / "rank-1.pid").read_text()), signal.SIGTERM)
    time.sleep(0.2)
    (tmp_path / "go-2").touch()
    wait_for(
        lambda: has_step(out, 4), process
    )  # which is reported; the first stop was after any step
    assert run_state.load_state(out)[0] in (2, 3)

    send_to_group(process, signal.SIGTERM)
    time.sleep(0.2)
    (tmp_path / "go-4").touch()
    began = time.monotonic()
    process.wait(timeout=60)
    assert time.monotonic() - began < 10
    assert run_state.load_state(out)[0] in (4, 5)

    (tmp_path / "go-6").touch()
    subprocess.run(
        [sys.executable, *torchrun],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    assert_same_result(out, whole)


def test_workers_and_the_lock_go_with_a_parent_that_is_killed(tmp_path, whole):
    out, go = tmp_path / "run", tmp_path / "go"
    code = PAUSING.format(step=3, go=str(go)) + COMMAND
    process = start(code, "train", "vilseg_debug", *SETTINGS, "--out", out)
    wait_for(lambda: has_step(out, 3), process)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    with held(out):  # though the workers, which were forked while the lock was held, may still live
        pass
    wait_for(lambda: not any(map(is_alive, workers)))
    assert run("train", "vilseg_debug", *SETTINGS, "--out", out, "--resume") == 0
    assert_same_result(out, whole)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_in_one_line(tmp_path):
    out, go = tmp_path / "run", tmp_path / "go"
    code = PAUSING.format(step=3, go=str(go)) + COMMAND
    process = start(code, "train", "vilseg_debug", *SETTINGS, "--out", out)
    wait_for(lambda: has_step(out, 3), process)
    os.kill(
        min(children(process.pid)), signal.SIGKILL
    )  # while the training is not waiting for a batch
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in messages
    assert messages.splitlines()[-1].startswith(
        "maskfree: error: a data worker ended (is memory short?): "
    )


class Snapshots:
    """Copies of a folder, one before each change of a file or folder in it: what a kill leaves at
    that moment.
    """

    def __init__(self, folder: Path, copies: Path):
        self._folder, self._copies, self._busy = folder, copies, False
        self.paths: list[Path] = []

    def __call__(self, event: str, arguments: tuple) -> None:
        changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "open")
        if (
            self._busy
            or event not in changes
            or not str(arguments[0]).startswith(f"{self._folder}/")
        ):
            return
        if event == "open" and (arguments[1] is None or "r" in arguments[1]):
            return
        self._busy = True
        self.paths.append(self._copies / f"{len(self.paths):03}-{event}")
        shutil.copytree(self._folder, self.paths[-1])
        self._busy = False


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Snapshots]:
    watching = Snapshots(tmp_path / "whole", tmp_path)
    active = [watching]
    sys.addaudithook(lambda event, arguments: active[0](event, arguments) if active else None)
    yield watching
    active.clear()


@pytest.mark.parametrize("most", [12, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_write_goes_on_as_if_nothing_had_been(tmp_path, snapshots, most):
    recipe = small_recipe({"workers": 0}, steps=4, save_every=1)
    (tmp_path / "whole").mkdir()
    assert fit(recipe, tmp_path / "whole") == 4
    kills = list(snapshots.paths)
    assert sum("os.rename" in path.name for path in kills) >= 6
    for killed in kills[:: max(1, len(kills) // most)]:
        assert fit(recipe, killed, resume_run=(killed / "run.json").exists()) == 4, killed
        assert_same_result(killed, tmp_path / "whole")


def test_a_damaged_state_is_named_and_the_one_before_goes_on(tmp_path):
    recipe = small_recipe({"workers": 0}, steps=2, save_every=1)
    assert fit(recipe, tmp_path / "whole") == 2
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    newest = tmp_path / "run" / "state" / "step-00000002"
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=rf"{tensors} is damaged: .*without {newest} a run goes on from the state"
    ):
        fit(recipe, tmp_path / "run", resume_run=True)
    shutil.rmtree(newest)
    assert fit(recipe, tmp_path / "run", resume_run=True) == 2
    assert_same_result(tmp_path / "run", tmp_path / "whole")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set, and what would have ended the process."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A note for each time that the process would have ended at once."""
    noted: list[str] = []
    monkeypatch.setattr(signals, "_end_at_once", lambda: noted.append("end"))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    return noted


def test_a_second_interrupt_ends_at_once_but_no_repetition_of_the_first(clock, ends, capfd):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(finish=True) as stop:
        assert stop.number is None
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        clock[0] += 60
        signal.raise_signal(signal.SIGTERM)
        assert not ends
        signal.raise_signal(signal.SIGINT)
        assert ends == ["end"]
    assert capfd.readouterr().err == "stopping after this step\n"
    assert signal.getsignal(signal.SIGINT) == before


def test_under_torchrun_a_second_interrupt_is_the_launchers(clock, ends, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with StopSignals(finish=True):
        signal.raise_signal(signal.SIGINT)
        clock[0] += 60
        signal.raise_signal(signal.SIGINT)
    assert not ends


def test_contexts_within_share_the_first_signal(clock, ends):
    with StopSignals() as outer:
        with StopSignals(finish=True) as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.number == outer.number == signal.SIGTERM
        signal.raise_signal(
            signal.SIGTERM
        )  # the launcher's repetition, after the last step was saved
    with StopSignals() as later:
        assert later.number is None
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_nothing_is_caught():
    handlers: list[object] = []

    def enter() -> None:
        with StopSignals() as stop:
            handlers.append((stop.number, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [(None, before)]


def test_a_second_interrupt_kills():
    code = "from maskfree.signals import StopSignals; import time\nwith StopSignals(finish=True):"
    process = start(code + "\n print('ready', flush=True)\n while True: time.sleep(0.05)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    time.sleep(signals._AGAIN_SECONDS + 0.2)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert messages == "stopping after this step\n"


NAMES = [
    *((name,) for name in COMMANDS if name != "prepare"),
    *(("prepare", kind) for kind in PREPARED),
    *(("evaluate", kind) for kind in EVALUATED),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", NAMES, ids=" ".join)
def test_every_command_says_in_one_line_what_was_done_and_how_to_go_on(
    monkeypatch, capsys, name, number
):
    monkeypatch.setattr("maskfree.cli._run", lambda arguments: signal.raise_signal(number))
    assert run(*name, "a b", "--out", "c") == 128 + number
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    command = f"maskfree {' '.join(name)} 'a b' --out c"
    resumed = name in (("train",), ("prepare", "entities"))
    assert line.startswith(f"maskfree: stopped by {number.name}: ")
    assert line.endswith(f": {command}{' --resume' if resumed else ''}\n")


def test_a_stop_before_the_first_state_promises_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "maskfree.engine.train.launch", lambda *settings: signal.raise_signal(signal.SIGTERM)
    )
    assert run("train", "vilseg_debug", "--out", tmp_path / "run") == 143
    told = capsys.readouterr().err.splitlines()[-1]
    assert "nothing was written; to start anew: maskfree train" in told
    assert "--resume" not in told
    assert not (tmp_path / "run").exists()


def test_segment_leaves_whole_results_only(tmp_path, tiny_checkpoint, photo, monkeypatch, capsys):
    from maskfree.results.segmentation import Segmentation

    for name in ("a.png", "b.png"):
        photo().save(tmp_path / name)
    save = Segmentation.save

    def stopping(self, folder, stem, *more):
        if stem == "b":
            signal.raise_signal(signal.SIGTERM)
        return save(self, folder, stem, *more)

    monkeypatch.setattr(Segmentation, "save", stopping)
    out = tmp_path / "out"
    photos = (tmp_path / "a.png", tmp_path / "b.png")
    assert (
        run("segment", *photos, "--words", "sky", "sea", "--model", tiny_checkpoint, "--out", out)
        == 143
    )
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.overlay.png", "a.png"]
    assert "photos that were done have all their files" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_are_just_starting_say_nothing(tmp_path, photo, number):
    pytest.importorskip("skimage")
    (tmp_path / "photos").mkdir()
    for index in range(40):
        photo((200, 150)).save(tmp_path / "photos" / f"{index}.png")
    options = ("--kind", "felzenszwalb", "--workers", 2, "--out", tmp_path / "maps")
    process = start(COMMAND, "prepare", "segments", tmp_path / "photos", *options)
    wait_for(lambda: len(children(process.pid)) >= 2, process)
    workers = children(process.pid)
    send_to_group(process, number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + number, messages
    assert messages.count("\n") == 1
    assert messages.startswith(
        f"maskfree: stopped by {number.name}: photos that were done are kept; to go on: "
    )
    wait_for(lambda: not any(map(is_alive, workers)))
    assert all(
        path.name == "segments.json" or path.suffix == ".png"
        for path in (tmp_path / "maps").iterdir()
    )


def test_a_stuck_worker_does_not_keep_its_parent(tmp_path):
    code = (
        "import time, torch\n"
        "from torch.utils.data import IterableDataset\n"
        "from maskfree.data.loader import build_loader\n"
        "class Stuck(IterableDataset):\n"
        "    def __iter__(self):\n"
        "        yield 1\n"
        "        while True: time.sleep(1)\n"
        "batches = iter(build_loader(Stuck(), 1))\n"
        "print(next(batches))\n"
    )
    began = time.monotonic()
    process = start(code)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert time.monotonic() - began < 50
