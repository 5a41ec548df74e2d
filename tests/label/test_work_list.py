"""Finding the photos to label."""

from __future__ import annotations

import errno
import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskfree.label.work_list import FoundPhoto, check_places, clean_name
from maskfree.label.work_list import find as find_photos


def made(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def find(places: list[str]) -> Iterator[FoundPhoto]:
    return find_photos(places, Path("/nothing here"))


def names(*places: object) -> list[str]:
    return [each.name for each in find([str(place) for place in places])]


def test_folders_are_searched_at_any_depth_in_order(tmp_path: Path):
    made(tmp_path / "all", "b.jpg", "a/z.PNG", "a/b/c.webp", "note.md", ".hidden.jpg", ".git/x.jpg")
    found = list(find([str(tmp_path / "all")]))
    assert [each.name for each in found] == ["b", "a/z", "a/b/c"]
    assert found[1].source == str(tmp_path / "all" / "a" / "z.PNG")


def test_names_of_several_folders_begin_with_the_folder(tmp_path: Path):
    made(tmp_path, "train/a.jpg", "val/a.jpg", "c.jpg")
    listed = names(tmp_path / "train", tmp_path / "val", tmp_path / "c.jpg")
    assert listed == ["train/a", "val/a", "c"]


def test_globs_name_photos_below_their_plain_part(tmp_path: Path):
    made(tmp_path, "p/x/1.jpg", "p/y/2.jpg", "p/y/2.txt.bak", "p/z/deep/3.jpg")
    assert sorted(names(f"{tmp_path}/p/*/*.jpg")) == ["x/1", "y/2"]
    assert sorted(names(f"{tmp_path}/p/**/*.jpg")) == ["x/1", "y/2", "z/deep/3"]


def test_globs_from_outside_find_no_label_maps(tmp_path: Path):
    made(tmp_path, "p/a.png", "p/out/labels/a.png", "p/out/images/b.png")
    for pattern, found in (("p/**/*.png", ["a"]), ("p/out/images/*.png", ["b"])):
        listed = find_photos([f"{tmp_path}/{pattern}"], tmp_path / "p" / "out")
        assert [each.name for each in listed] == found


def test_a_list_of_paths_is_relative_to_itself(tmp_path: Path):
    made(tmp_path, "p/a.jpg", "p/b c.jpg")
    text = f"\ufeff# photos\n\na.jpg\r\nb c.jpg\n{tmp_path}/p/a.jpg\nnone.jpg\n"
    (tmp_path / "p" / "list.txt").write_text(text, encoding="utf-8")
    found = list(find([str(tmp_path / "p" / "list.txt")]))
    assert [each.path.name for each in found] == ["a.jpg", "b c.jpg", "a.jpg", "none.jpg"]
    assert found[0].source == found[2].source
    assert found[2].name == clean_name(f"{tmp_path}/p/a.jpg")


def test_a_shard_is_listed_without_being_unpacked(tmp_path: Path):
    made(tmp_path, "a.jpg", "a.txt", "sub/b.PNG")
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for name in ("a.jpg", "a.txt", "sub/b.PNG"):
            shard.add(tmp_path / name, name)
    found = list(find([str(tmp_path / "s.tar")]))
    assert [(each.member, each.name) for each in found] == [("a.jpg", "a"), ("sub/b.PNG", "sub/b")]
    assert found[0].source == f"{tmp_path / 's.tar'}::a.jpg"
    with (tmp_path / "s.tar").open("rb") as file:
        for each in found:
            file.seek(each.offset)
            assert file.read(each.size) == each.member.encode()


def test_a_damaged_shard_gives_what_is_before_the_damage(tmp_path: Path):
    made(tmp_path, "a.jpg", "b.jpg")
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for name in ("a.jpg", "b.jpg"):
            shard.add(tmp_path / name, name)
    content = bytearray((tmp_path / "s.tar").read_bytes())
    content[1024:1536] = b"\xff" * 512
    (tmp_path / "s.tar").write_bytes(content)
    first, second = find([str(tmp_path / "s.tar")])
    assert (first.member, first.problem) == ("a.jpg", "")
    assert "the shard is damaged" in second.problem


def test_a_folder_that_cannot_be_read_is_found_as_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made(tmp_path, "p/a.jpg", "p/closed/b.jpg", "p/open/c.jpg")
    scan = os.scandir

    def refusing(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list(find([str(tmp_path / "p")]))
    assert [each.problem for each in found] == [
        "",
        "",
        f"{tmp_path}/p/closed cannot be read: Permission denied",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.jpg", "a/b"),
        ("a/b.v2.JPG", "a/b.v2"),
        ("no suffix", "no suffix"),
        ("v1.2", "v1.2"),
        ("../../x/./y.png", "x/y"),
        ("/data/x.png", "data/x"),
        ("caf\udce9.jpg", "caf_udce9"),
        ("a\nb\tc.png", "a_b_c"),
        ('q"u*e?s<t>i|o:n\\.png', "q_u_e_s_t_i_o_n_"),
        ("trailing. .png", "trailing"),
        ("...png", "photo"),
        (".hidden.png", "_hidden"),
        ("写真/猫.jpg", "写真/猫"),
        ("", "photo"),
    ],
)
def test_names_are_those_that_every_system_can_have(path: str, name: str):
    assert clean_name(path) == name


def test_long_names_are_cut_and_told_apart():
    long = [clean_name(f"{'ä' * 150}{number}.jpg") for number in range(3)]
    assert len(set(long)) == 3
    assert all(len(name.encode()) <= 200 for name in long)
    deep = [clean_name("/".join(["d" * 50] * 60 + [f"{number}.jpg"])) for number in range(2)]
    assert len(set(deep)) == 2
    assert all(len(name) < 100 for name in deep)


def test_places_are_checked_before_any_work(tmp_path: Path):
    made(tmp_path, "p/a.jpg")
    check_places([str(tmp_path / "p"), f"{tmp_path}/p/*.jpg"], tmp_path / "out")
    for place, said in (
        (tmp_path / "none", "there is no file or folder"),
        (f"{tmp_path}/p/*.png", "there is no file or folder"),
        ("https://example.org/a.jpg", "is a web address"),
        ("pipe:cat x.tar", "is a web address"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            check_places([str(place)], tmp_path / "out")
    with pytest.raises(ValueError, match="lies in the photos' folder"):
        check_places([str(tmp_path / "p")], tmp_path / "p" / "labels")


def test_memory_does_not_grow_with_the_length_of_a_list(tmp_path: Path):
    def peak(number: int) -> int:
        path = tmp_path / "list.txt"
        path.write_text("".join(f"{index}.jpg\n" for index in range(number)))
        tracemalloc.start()
        assert sum(1 for _ in find([str(path)])) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # What is imported or compiled at the first call does not count.
    peak(1)
    few = peak(100)
    # Python's own table of paths may grow in between; 20,000 photos would take 14 MB.
    assert peak(20_000) < few + 5_000_000
