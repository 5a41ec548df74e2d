"""Files are replaced in one step; text and JSON are read within bounds."""

import errno
import math
from pathlib import Path

import pytest

from maskfree.files.atomic import read_json, read_text, replace_bytes, replace_text


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
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"^cannot write .*c\.txt: No space left on device$"):
        replace_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_readers_never_find_a_part(tmp_path, monkeypatch):
    """Until the new content is whole, the name leads to the old one."""
    path = tmp_path / "c.txt"
    replace_text(path, "old")
    seen, original = [], Path.write_bytes

    def watched(self, content):
        seen.append(path.read_text())
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", watched)
    replace_text(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")


def test_a_name_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_bytes(tmp_path / "folder", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "content", [b"cat\ndog\n", b"\xef\xbb\xbfcat\ndog\n", b"cat\r\ndog\r\n", b"cat\rdog\r"]
)
def test_text_is_the_same_with_or_without_a_mark_and_with_any_line_ends(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") == "cat\ndog\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_named_with_the_file(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("café\n".encode(encoding))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text: save it as UTF-8"):
        read_text(tmp_path / "a.txt")


def test_a_file_without_end_is_not_read_into_memory(tmp_path):
    with pytest.raises(ValueError, match=r"/dev/zero is larger than 1,000 bytes"):
        read_text(Path("/dev/zero"), max_bytes=1000)
    (tmp_path / "a.txt").write_bytes(b"x" * 1000)
    assert len(read_text(tmp_path / "a.txt", max_bytes=1000)) == 1000


def test_a_folder_or_nothing_where_a_file_should_be(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: a file is expected"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000, "over 100 deep"),
        ("[" * 101 + "]" * 101, "over 100 deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "over 100 deep"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is repeated"),
        ('{"a": 1,', "Expecting property name"),
        ("", "Expecting value"),
        ("[" + "9" * 5000 + "]", "limit"),
    ],
)
def test_what_is_no_json_is_said_in_one_line_that_begins_with_the_path(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_json_is_read_with_a_mark_and_to_its_depth(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, {"b": null}]}')
    assert read_json(path) == {"a": [1, {"b": None}]}
    path.write_text("[" * 100 + "]" * 100)
    read_json(path)
    path.write_text("[NaN, 1]")
    assert math.isnan(read_json(path, allow_nan=True)[0])
