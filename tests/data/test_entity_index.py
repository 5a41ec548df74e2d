"""The index of a corpus by entity: what it holds, partners, resumption, and what does not fit."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from shard_files import jpeg, write_tar

from maskfree.data.entities import index as index_module
from maskfree.data.entities import keys, shard_parts
from maskfree.data.entities.caption_pairs import MAX_WORDS, read_pairs
from maskfree.data.entities.index import PAIRS, EntityIndex
from maskfree.data.entities.keys import fingerprint
from maskfree.data.entities.preparation import Preparation
from maskfree.data.shards import read_shards
from maskfree.data.tar_members import tar_members
from maskfree.text.entities import EntitySet

for package in ("pyarrow", "textblob", "lemminflect"):
    pytest.importorskip(package, reason=f"{package} is in the extra 'entities'")

FINDER = EntitySet(
    (("dog", "dog"), ("puppy", "dog"), ("cat", "cat"), ("bus", "bus"), ("boat", "boat"))
)
CORPUS = {
    "a.tar": {
        "k/0": ["two dogs"],
        "k/1": ["a cat", "a puppy and a cat"],
        "k/2": ["nothing"],
        "k/3": ["a bus"],
    },
    "b.tar": {"k/4": ["Cats"], "k/5": ["the dog's bowl"], "k/6": ["trees"]},
    "c.tar": {"k/7": ["a boat"], "k/8": ["a dog", "a cat"]},
}


def entries(pairs: dict[str, list[str]]) -> list[tuple[str, bytes]]:
    return [
        entry
        for key, captions in pairs.items()
        for entry in (
            (f"{key}.jpg", jpeg(int(key[-1]))),
            (f"{key}.json", json.dumps({"captions": captions}).encode()),
            (f"{key}.seg.png", b"other"),
        )
    ]


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    folder = tmp_path / "shards"
    folder.mkdir()
    return tuple(write_tar(folder / name, entries(pairs)) for name, pairs in CORPUS.items())


def prepare(
    shards: Sequence[Path],
    out: Path,
    resume: bool = False,
    finder: EntitySet = FINDER,
    workers: int = 1,
):
    work = Preparation(tuple(shards), out, workers)
    work.start({"list": finder.lines}, resume)
    work.find(finder, lambda units, name, number: units)
    return work.finish(finder, {"list": finder.lines})


@pytest.fixture
def index(shards: tuple[Path, ...], tmp_path: Path) -> EntityIndex:
    prepare(shards, tmp_path / "index")
    return EntityIndex.open(tmp_path / "index", [str(shard) for shard in reversed(shards)])


def test_pairs_with_an_entity_are_found_by_their_keys(index: EntityIndex):
    found = {f"k/{n}": index.find(f"k/{n}") for n in range(9)}
    assert {key for key, row in found.items() if row is None} == {"k/2", "k/6"}
    assert index.find("elsewhere") is None
    named = {key: index.entities_of(row) for key, row in found.items() if row is not None}
    assert named == {
        "k/0": ("dog",),
        "k/1": ("cat", "dog"),
        "k/3": ("bus",),
        "k/4": ("cat",),
        "k/5": ("dog",),
        "k/7": ("boat",),
        "k/8": ("dog", "cat"),
    }
    assert len(index) == 7
    assert index.entities == ("dog", "cat", "bus", "boat")


def test_two_keys_with_one_hash_are_told_apart(index: EntityIndex, monkeypatch: pytest.MonkeyPatch):
    hashed = index_module.key_hash("k/0")
    monkeypatch.setattr(index_module, "key_hash", lambda key: hashed)
    assert index.find("k/0") == 0
    assert index.find("another") is None


def test_partners_share_an_entity_and_come_with_their_own_photo(
    index: EntityIndex, shards: tuple[Path, ...]
):
    """Each possible partner is drawn, in whichever shard it lies, the photo itself never, and each
    as often.
    """
    photos = {e.key: e.photo for e in read_shards([str(shard) for shard in shards])}
    drawn = Counter()
    rng = np.random.default_rng(0)
    row = index.find("k/1")
    assert row is not None
    for _ in range(600):
        found = index.partner(row, rng)
        assert found is not None
        entity, example = found
        assert (example.problem, example.photo) == ("", photos[example.key])
        drawn[entity, example.key] += 1
    assert set(drawn) == {
        ("cat", "k/4"),
        ("cat", "k/8"),
        ("dog", "k/0"),
        ("dog", "k/5"),
        ("dog", "k/8"),
    }
    assert abs(sum(n for (entity, _), n in drawn.items() if entity == "cat") - 300) < 60
    assert min(n for (entity, _), n in drawn.items() if entity == "dog") > 60


def test_partners_are_seeded_and_survive_pickling(index: EntityIndex):
    copy = pickle.loads(pickle.dumps(index))
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    assert [index.partner(0, ours) for _ in range(9)] == [copy.partner(0, theirs) for _ in range(9)]
    assert len(pickle.dumps(index)) < 2000  # the copy maps the files by itself


def test_an_entity_with_one_photo_has_no_partner(index: EntityIndex):
    for key in ("k/3", "k/7"):
        row = index.find(key)
        assert row is not None
        assert index.partner(row, np.random.default_rng(0)) is None


def test_the_table_for_everybody(index: EntityIndex):
    from pyarrow import parquet

    table = parquet.read_table(index.folder / PAIRS)
    assert table.column_names == [
        "key",
        "shard",
        "offset",
        "size",
        "entities",
        "canonical",
        "captions",
    ]
    assert table.slice(1, 1).drop_columns(["offset", "size"]).to_pylist() == [
        {
            "key": "k/1",
            "shard": 0,
            "entities": ["cat", "puppy"],
            "canonical": ["cat", "dog"],
            "captions": CORPUS["a.tar"]["k/1"],
        }
    ]
    assert EntitySet.read(str(index.folder / "entities.txt")) == FINDER


def test_shards_may_move_but_not_change(
    index: EntityIndex, shards: tuple[Path, ...], tmp_path: Path
):
    moved = [shard.rename(tmp_path / shard.name) for shard in shards]
    names = [str(shard) for shard in moved]
    assert EntityIndex.open(index.folder, names).find("k/4") == index.find("k/4")
    assert str(tmp_path) not in (index.folder / "index.json").read_text()
    with pytest.raises(ValueError, match=r"shard 'c\.tar' of the index .* is not among"):
        EntityIndex.open(index.folder, names[:2])
    extra = write_tar(tmp_path / "d.tar", entries({"k/9": ["a dog"]}))
    with pytest.raises(ValueError, match=r"shard 'd\.tar' is not in the index"):
        EntityIndex.open(index.folder, [*names, str(extra)])
    content = bytearray(moved[1].read_bytes())
    content[1000] ^= 1
    moved[1].write_bytes(content)
    with pytest.raises(ValueError, match=r"shard 'b\.tar' has changed"):
        EntityIndex.open(index.folder, names)


def test_a_shard_that_changes_later_gives_a_problem(index: EntityIndex, shards: tuple[Path, ...]):
    write_tar(shards[1], entries({"k/5": ["moved"]}))
    shards[2].unlink()
    problems = {index.partner(0, np.random.default_rng(seed))[1].problem for seed in range(20)}  # pyright: ignore[reportOptionalSubscript]
    assert any(
        "is not where the index" in problem or "no file in the archive" in problem
        for problem in problems
    )
    assert any("No such file" in problem for problem in problems)


def test_large_shards_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keys, "_WHOLE", 1000)
    monkeypatch.setattr(keys, "_SAMPLES", 3)
    monkeypatch.setattr(keys, "_SAMPLE", 10)
    content = bytearray(range(256)) * 8
    (tmp_path / "x").write_bytes(content)
    before = fingerprint(tmp_path / "x")
    for place, noticed in ((0, True), (500, False), (2047, True)):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "x").write_bytes(changed)
        assert (fingerprint(tmp_path / "x") != before) is noticed


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_resumed_run_equals_an_uninterrupted_one(
    shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prepare(shards, tmp_path / "whole")
    read: list[str] = []

    def stops(shard, counts):
        read.append(shard.name)
        if read.count("c.tar") == 1 and shard.name == "c.tar":
            raise KeyboardInterrupt
        return read_pairs(shard, counts)

    monkeypatch.setattr(shard_parts, "read_pairs", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(shards, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(FileExistsError, match="go on with --resume"):
        prepare(shards, tmp_path / "stopped")
    with pytest.raises(ValueError, match="begun with another"):
        prepare(shards, tmp_path / "stopped", resume=True, finder=EntitySet((("cat", "cat"),)))
    prepare(shards, tmp_path / "stopped", resume=True)
    assert read == ["a.tar", "b.tar", "c.tar", "c.tar"]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert not (tmp_path / "stopped.unfinished").exists()
    with pytest.raises(FileExistsError, match="exists"):
        prepare(shards, tmp_path / "stopped", resume=True)


def test_a_part_of_a_changed_shard_is_made_again(shards: tuple[Path, ...], tmp_path: Path):
    work = Preparation(shards, tmp_path / "index", 1)
    work.start({}, resume=False)
    work.find(FINDER, lambda units, name, number: units)
    write_tar(shards[0], entries({"k/0": ["a cat"]}))
    work.find(FINDER, lambda units, name, number: units)
    assert work.finish(FINDER, {})["entities"] == {"dog": 2, "cat": 3, "bus": 0, "boat": 1}


def test_several_processes_give_the_same(shards: tuple[Path, ...], tmp_path: Path):
    prepare(shards, tmp_path / "one")
    prepare(shards, tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_what_cannot_be_used_is_counted(tmp_path: Path):
    texts = {
        "good": ("json", b'{"caption": "a dog"}'),
        "plain": ("txt", b"a cat"),
        "blank": ("txt", b" \n "),
        "latin": ("txt", "a dog in M\xfcnchen".encode("latin-1")),
        "broken": ("json", b'{"captions": ["a dog"'),
        "shape": ("json", b'{"captions": [3]}'),
        "half": ("json", b'{"caption": "a dog \\ud800"}'),
        "long": ("txt", b"word " * (MAX_WORDS - 1) + b"dog" + b" bus" * 10_000),
        "one word": ("txt", b"x" * 100_000 + b" dog"),
        "none": ("txt", b"a tree"),
    }
    files = [
        file
        for key, (suffix, text) in texts.items()
        for file in ((f"{key}.jpg", b"photo"), (f"{key}.{suffix}", text))
    ]
    files += [
        ("bare.jpg", b"photo"),
        ("text.txt", b"a dog"),
        ("empty.jpg", b""),
        ("empty.txt", b"a dog"),
    ]
    files += [("good.jpg", b"other photo"), ("good.txt", b"a cat")]
    files += [("dotted.v2.jpg", b"photo"), ("dotted.v2.txt", b"a dog")]
    summary = prepare([write_tar(tmp_path / "a.tar", files)], tmp_path / "index")
    left_out = {
        "no photo": 1,
        "empty photo": 1,
        "no caption": 2,
        "unreadable captions": 4,
        "no entity": 2,
    }
    left_out |= {"dotted name": 1, "unreadable name": 0}
    others = {"captions": 6, "captions cut": 2, "broken shard": 0, "repeated key": 1}
    assert summary["counts"] == {"read": 15, "kept": 3} | left_out | others
    assert summary["entities"] == {"dog": 2, "cat": 1, "bus": 0, "boat": 0}


def test_a_list_whose_words_never_occur_is_refused(shards: tuple[Path, ...], tmp_path: Path):
    with pytest.raises(ValueError, match="none of the 9 pairs has one of the 1 entities"):
        prepare(shards, tmp_path / "index", finder=EntitySet((("zebra", "zebra"),)))
    assert not (tmp_path / "index").exists()


def test_shards_of_one_name_are_refused(shards: tuple[Path, ...], tmp_path: Path):
    with pytest.raises(ValueError, match=r"'a\.tar' is given 2 times"):
        prepare([shards[0], shards[0]], tmp_path / "index")


def test_no_index(tmp_path: Path, index: EntityIndex):
    with pytest.raises(FileNotFoundError, match="maskfree prepare entities"):
        EntityIndex.open(tmp_path, [])
    for content, words in (
        ("{", "is not the summary"),
        ("[]", "is not the summary"),
        ('{"format": "2"}', "format '2'"),
    ):
        (index.folder / "index.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            EntityIndex.open(index.folder, [])


def archive(path: Path, tar_format: int, mtime: float, names: Sequence[str]) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700 * number, mtime
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return path


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
@pytest.mark.parametrize(
    "mtime", [0, 12.5]
)  # of a fraction pax makes a record of its own, as WebDataset's writer does
@pytest.mark.parametrize(
    "long",
    ["x.jpg", "f" * 90 + "/" + "g" * 80 + ".jpg", "\xfcber/\u72d7.jpg", "l" * 99 + "\u72d7.jpg"],
)
def test_members_are_those_that_tarfile_finds(
    tmp_path: Path, tar_format: int, mtime: float, long: str
):
    names = ["a.jpg", "a.json", long, "z.txt"]
    if tar_format == tarfile.USTAR_FORMAT and "/" not in long:
        names[2] = "short.jpg"  # the format cannot hold long names without folders
    path = archive(tmp_path / "a.tar", tar_format, mtime, names)
    with tarfile.open(path) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
    assert [tuple(member) for member in tar_members(path)] == expected
    assert [name for name, _, _ in expected] == names


def test_what_comes_before_a_damage_is_read(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", entries(CORPUS["a.tar"]))
    content = path.read_bytes()
    counts: Counter[str] = Counter()
    with_photo = [member.offset for member in tar_members(path) if member.name.endswith(".jpg")]
    path.write_bytes(content[: with_photo[2] + 10])
    assert [pair.key for pair in read_pairs(path, counts)] == ["k/0", "k/1"]
    assert counts["broken shard"] == 1
    damaged = bytearray(content)
    damaged[with_photo[2] - 512 : with_photo[2]] = b"?" * 512
    path.write_bytes(damaged)
    counts.clear()
    assert [pair.key for pair in read_pairs(path, counts)] == ["k/0", "k/1"]
    assert counts["broken shard"] == 1
    path.write_bytes(b"no archive at all, " * 100)
    counts.clear()
    assert list(read_pairs(path, counts)) == []
    assert counts["broken shard"] == 1
