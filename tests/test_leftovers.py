"""What is being written is whole or not there, and what a killed process leaves goes with the next
run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kills import killed_at_each_step
from maskfree.files.atomic import replace_text
from maskfree.files.leftovers import (
    remove_leftovers,
    replace_folder,
    replacing,
    unfinished_folder,
    whole,
    writing,
)

_WRITER = """
import sys
from pathlib import Path
from maskfree.unfinished import replacing, unfinished_folder

place = Path(sys.argv[1])
with replacing(place / "file.txt") as file, unfinished_folder(place) as folder:
    file.write_text("half")
    (folder / "part.txt").write_text("half")
    print(file, folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path):
    """A process that is writing a file and a folder, and the two."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, [Path(path) for path in process.stdout.readline().split()]
        process.kill()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, writer):
    """Those of a living one, and files of other names, stay."""
    process, places = writer
    mine = [
        tmp_path / name
        for name in (".maskfree-settings.toml", ".maskfree-notes", "maskfree-a1b2c3d4", ".other")
    ]
    for path in mine:
        path.write_text("mine")
    remove_leftovers(tmp_path)
    assert all(path.exists() for path in (*places, *mine))

    process.kill()
    process.wait()
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in places)
    assert sorted(tmp_path.iterdir()) == sorted(mine)


def test_the_first_write_into_a_folder_removes_leftovers(tmp_path: Path, writer):
    process, places = writer
    process.kill()
    process.wait()
    replace_text(tmp_path / "file.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert not any(path.exists() for path in places)


def test_a_link_by_the_name_of_a_leftover_is_not_followed(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file.txt").write_text("mine")
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / ".maskfree-a1b2c3d4").symlink_to(tmp_path / "mine")
    remove_leftovers(tmp_path / "place")
    assert (tmp_path / "mine" / "file.txt").read_text() == "mine"


def test_what_the_block_renamed_stays(tmp_path: Path):
    with unfinished_folder(tmp_path) as folder:
        (folder / "part.txt").write_text("whole")
        folder.rename(tmp_path / "done")
    assert (tmp_path / "done" / "part.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_name_of_255_bytes_can_be_replaced(tmp_path: Path):
    path = tmp_path / ("x" * 251 + ".txt")
    for text in ("old", "new"):
        replace_text(path, text)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_block_leaves_the_old_content(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _fail(error: Exception):
    raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "cannot write place: No space left on device"),
        (PermissionError(13, "Permission denied", ".x"), "cannot write place: Permission denied"),
        # what safetensors and tokenizers make of it
        (
            Exception("Error while serializing: I/O error: (os error 28)"),
            "cannot write place: No space left on device",
        ),
        (OSError("cannot write another: disk full"), "cannot write another: disk full"),
    ],
)
def test_errors_of_the_disk_name_the_place(error: Exception, message: str):
    with pytest.raises(OSError) as caught, writing(Path("place")):
        _fail(error)
    assert str(caught.value) == message


def test_other_errors_pass():
    with pytest.raises(ValueError, match="a value"), writing(Path("place")):
        _fail(ValueError("a value"))


def test_text_that_is_no_unicode_is_escaped(tmp_path: Path):
    """As in the name of a file that is not UTF-8; JSON reads it back."""
    replace_text(tmp_path / "x.json", '"caf\udce9"')
    assert (tmp_path / "x.json").read_bytes() == rb'"caf\udce9"'


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_old_or_new_whenever_the_process_is_killed(tmp_path: Path):
    path = tmp_path / "file.txt"
    seen = set()
    for _ in killed_at_each_step(lambda: replace_text(path, "new")):
        seen.add(path.read_text() if path.exists() else "nothing")
        path.write_text("old")
        remove_leftovers(tmp_path)
        assert _names(tmp_path) == ["file.txt"]
    assert seen == {"nothing", "old", "new"}


def test_a_folder_is_old_or_new_whenever_the_process_is_killed(tmp_path: Path):
    """`whole` finds it, and the next one that is written leaves nothing else behind."""
    place = tmp_path / "place"

    def write(text: str) -> None:
        with unfinished_folder(tmp_path) as folder:
            (folder / "first.txt").write_text(text)
            (folder / "second.txt").write_text(text)
            replace_folder(folder, place)

    write("old")
    seen = []
    for number in killed_at_each_step(lambda: write("new")):
        found = {
            path.read_text()
            for path in (whole(place) / name for name in ("first.txt", "second.txt"))
        }
        assert len(found) == 1, f"a mixture after {number} steps"
        seen += found
        remove_leftovers(tmp_path)
        write("old")
        assert _names(tmp_path) == ["place"]
    assert seen == sorted(seen, reverse=True) and set(seen) == {"old", "new"}
