"""Files are replaced in one step."""

import os
from pathlib import Path

import pytest

from maskfree.files import replace_bytes, replace_text


def test_content_is_written_and_replaced_in_folders_that_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    replace_bytes(path, b"\x00one")
    assert path.read_bytes() == b"\x00one"
    replace_text(path, "två\n")
    assert path.read_bytes() == "två\n".encode()
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    replace_text(path, "old")

    def full(self, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_readers_never_find_a_part(tmp_path, monkeypatch):
    """Until the new content is whole, the name leads to the old one."""
    path = tmp_path / "c.txt"
    replace_text(path, "old")
    seen, original = [], os.fdopen

    def watched(handle, mode):
        seen.append(path.read_text())
        return original(handle, mode)

    monkeypatch.setattr(os, "fdopen", watched)
    replace_text(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")


def test_a_name_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_bytes(tmp_path / "folder", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
