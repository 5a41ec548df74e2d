"""The lock on a run's folder: one owner at a time, and none that is dead."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.shard_files import pairs, write_tar
from maskfree import run_dir
from maskfree.cli import main
from maskfree.run_dir import LOCK, check_record, held, refuse_if_held
from stopping import start, wait_for

HOLD = """
import sys, time
from pathlib import Path
from maskfree.run_dir import held, check_record
with held(Path(sys.argv[1])):
    {more}
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Path]:
    """A folder that another thread holds."""
    folder, ready, done = tmp_path / "taken", threading.Event(), threading.Event()

    def hold() -> None:
        with held(folder):
            ready.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    yield folder
    done.set()
    thread.join()


def test_a_folder_has_one_owner_which_may_ask_again(taken, tmp_path):
    refusal = f"taken is in use by another run, process {os.getpid()} on "
    with pytest.raises(BlockingIOError, match=refusal), held(taken):
        pass
    with pytest.raises(BlockingIOError, match=refusal):
        refuse_if_held(taken)
    with held(tmp_path / "own"), held(tmp_path / "other" / ".." / "own"):
        refuse_if_held(tmp_path / "own")


def test_nothing_is_left_of_a_folder_without_content(tmp_path):
    with held(tmp_path / "runs" / "empty"):
        assert (tmp_path / "runs" / "empty" / LOCK).is_file()
    assert not (tmp_path / "runs").exists()
    with held(tmp_path / "runs" / "full"):
        (tmp_path / "runs" / "full" / "file").touch()
    assert [path.name for path in (tmp_path / "runs" / "full").iterdir()] == ["file"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match="file is a file: a run needs a folder"),
        held(tmp_path / "file"),
    ):
        pass


def can_hold(folder: Path) -> bool:
    """Whether a run may have a folder now."""
    try:
        with held(folder):
            return True
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    "more", ["pass", "import os; os.fork() or time.sleep(600)"], ids=["alone", "with a child"]
)
def test_a_dead_owner_keeps_nothing(tmp_path, more):
    process = start(HOLD.format(more=more), tmp_path, stderr=None)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"process {process.pid} on "), held(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()

    # The child drops the lock as soon as it runs, which may be after its parent's end.
    wait_for(lambda: can_hold(tmp_path))
    assert not (tmp_path / LOCK).exists()
    if more != "pass":
        os.killpg(process.pid, signal.SIGKILL)  # the child lived on


def test_of_many_that_want_a_folder_one_has_it(tmp_path):
    """Owners come and go, and each removes the file that others have already opened."""
    code = """
import os, sys, time
from pathlib import Path
from maskfree.run_dir import held, check_record
folder, got = Path(sys.argv[1]), 0
while got < 30:
    try:
        with held(folder):
            os.mkdir(folder / "owner")
            os.rmdir(folder / "owner")
            got += 1
    except BlockingIOError:
        time.sleep(0.001)
"""
    processes = [start(code, tmp_path) for _ in range(3)]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", "", ""]


def test_only_the_first_process_of_a_run_holds_its_folder(taken, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with held(taken):
        pass


def test_without_locks_in_the_file_system_a_run_is_warned(tmp_path, monkeypatch, caplog):
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_dir.fcntl, "flock", unsupported)
    with held(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert "the file system has no locks" in caplog.text


COMMANDS = [
    ("train", "vilseg_debug", "--train.accelerator", "cpu", "--out"),
    ("train", "vilseg_debug", "--train.accelerator", "cpu", "--resume", "--out"),
    ("distill", "pseudo-labels", "photos", "--words", "sky", "--model", "tiny", "--out"),
    (
        "distill",
        "clips4",
        "photos",
        "--words",
        "sky",
        "--model",
        "tiny",
        "--segments.kind",
        "felzenszwalb",
        "--out",
    ),
    ("prepare", "segments", "photos", "--kind", "felzenszwalb", "--out"),
    ("prepare", "teacher", "photos", "--model", "tiny", "--out"),
    ("prepare", "entities", "shard.tar", "--workers", "1", "--out"),
    ("prepare", "entities", "shard.tar", "--workers", "1", "--resume", "--out"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_second_run_in_one_folder_is_refused(
    tmp_path, monkeypatch, capsys, tiny_checkpoint, photo, taken, command
):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    photo().save("photos/a.png")
    write_tar(Path("shard.tar"), pairs(["dog"]))
    out = "taken"
    if command[1] == "entities":
        pytest.importorskip("pyarrow")
        taken.rename("out.unfinished")
        out = "out"
    with pytest.raises(SystemExit) as raised:
        main([*command, out])
    error = capsys.readouterr().err
    assert raised.value.code == 2, error
    assert error.splitlines()[-1].startswith(
        f"maskfree: error: {'out.unfinished' if out == 'out' else out} is in use"
    )
    assert [
        path.name for path in (taken if taken.exists() else Path("out.unfinished")).iterdir()
    ] == [LOCK]


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path):
    record = {"side_px": 48, "words": ("dog", "gras\udce9"), "train": {"steps": 3, "log_every": 1}}
    for _ in range(2):
        check_record(tmp_path / "record.json", record, free=("train.log_every",))

    free = record | {"train": {"steps": 3, "log_every": 7}}
    check_record(tmp_path / "record.json", free, free=("train.log_every",))
    changed = record | {"side_px": 64, "train": {"steps": 4, "log_every": 1}}
    with pytest.raises(ValueError, match=r"was begun with another side_px, train\.steps: give"):
        check_record(tmp_path / "record.json", changed)


def test_files_without_a_record_are_not_taken_for_results(tmp_path):
    (tmp_path / "a.png").touch()
    check_record(tmp_path / "one.json", {}, made="*.safetensors")
    with pytest.raises(FileExistsError, match=r"a\.png was not made by an earlier run"):
        check_record(tmp_path / "two.json", {}, made="*.png")


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(ValueError, match=r"record\.json"):
        check_record(tmp_path / "record.json", {"side_px": 48})
