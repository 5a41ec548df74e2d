"""Streams of batches: everything once a pass, the same from the same seed, and exactly
continued.
"""

import itertools
import logging
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import captioned, jpeg, pairs, write_index, write_tar

from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.entities.index import EntityIndex
from maskfree.data.examples import Example, counted
from maskfree.data.loader import Loaded, NoSamples, Position, Stream, build_loader
from maskfree.data.order import Share, Sources, shuffled
from maskfree.data.sample import Transform
from maskfree.data.shards import find_shards
from maskfree.text.entities import EntitySet
from maskfree.types import TensorRecord


@dataclass(frozen=True)
class KeyBatch(TensorRecord):
    """One-pixel views and the keys of their samples."""

    images: torch.Tensor
    keys: tuple[str, ...]


@dataclass(frozen=True)
class KeyTransform(Transform):
    """A one-pixel view whose value comes from the seed.

    The key carries the caption, the partner's red and entity.
    """

    with_partner: bool = False
    start: float = 0.0
    without_captions: bool = False

    @property
    def learns_without_captions(self):
        return self.without_captions

    @property
    def partners_from(self):
        return self.start

    @property
    def takes_partner(self):
        return self.with_partner

    def sample(self, source, seed):
        key = f"{source.key}:{','.join(source.captions)}"
        if source.partner:
            key += f":{source.partner.photo.getpixel((0, 0))[0]}:{source.partner.entity}"
        return key, np.random.default_rng(seed).random()

    def collate(self, samples):
        values = torch.tensor([value for _, value in samples], dtype=torch.float32)
        return KeyBatch(
            images=values.view(-1, 1, 1, 1).expand(-1, 3, 1, 1).contiguous(),
            keys=tuple(key for key, _ in samples),
        )


@pytest.fixture
def shards(tmp_path):
    """Three shards of 5, 7 and 4 pairs."""
    keys = [
        [f"{shard}{number}" for number in range(count)]
        for shard, count in (("a", 5), ("b", 7), ("c", 4))
    ]
    for name, part in zip("abc", keys, strict=True):
        write_tar(tmp_path / f"{name}.tar", pairs(part))
    return tmp_path


def make(folder, share=Share(0, 1), positions=None, batches_done=0, batch_size=3, **changes):  # noqa: B008
    data = replace(DataConfig(shards=(str(folder),), shuffle_buffer=4, workers=0), **changes)
    stream = Stream(data, KeyTransform(bool(data.index)), batch_size, 5, share)
    stream.go_to(positions or stream.positions, batches_done)
    return stream


def take(stream, number, workers=0):
    loaded = list(itertools.islice(build_loader(stream, workers), number))
    assert all(isinstance(item, Loaded) for item in loaded)
    return loaded


def contents(loaded):
    return [(item.batch.keys, item.batch.images[:, 0, 0, 0].tolist()) for item in loaded]


def keys_of(loaded):
    return [key.split(":")[0] for item in loaded for key in item.batch.keys]


def test_each_pass_holds_every_sample_once_in_another_order(shards):
    loaded = take(make(shards, batch_size=4), 12)
    passes = [keys_of(loaded[i : i + 4]) for i in (0, 4, 8)]
    assert [sorted(p) for p in passes] == [sorted(passes[0])] * 3
    assert len(set(passes[0])) == 16
    assert passes[0] != passes[1] != passes[2]
    assert [item.position for item in loaded[3:5]] == [Position(0, 16), Position(1, 4)]


def test_stream_follows_from_the_seed(shards):
    first, again = contents(take(make(shards), 7)), contents(take(make(shards), 7))
    other = make(shards)
    other.seed = 6
    assert first == again
    assert first != contents(take(other, 7))


def test_augmentation_changes_with_the_pass_and_not_with_the_order(shards):
    def values(loaded):
        return {
            key: value
            for keys, numbers in contents(loaded)
            for key, value in zip(keys, numbers, strict=True)
        }

    by_one = take(make(shards, batch_size=16), 2)
    assert values(by_one[:1]).keys() == values(by_one[1:]).keys()
    assert not set(values(by_one[:1]).values()) & set(values(by_one[1:]).values())
    assert values(take(make(shards, batch_size=16, shuffle_buffer=1), 1)) == values(by_one[:1])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_processes_split_each_pass_by_shard_or_by_sample(shards, count):
    for turn in (0, 1):
        parts = []
        for index in range(count):
            stream = make(shards)
            parts.append(
                [e.key for e in Share(index, count).examples(stream.units, stream.read, 5, turn)]
            )
        assert sorted(itertools.chain(*parts)) == sorted(
            keys_of(take(make(shards, batch_size=16), 1))
        )
        sizes = sorted(map(len, parts))
        assert max(sizes) - min(sizes) <= 1 if count == 5 else sum(sizes) == 16


@pytest.mark.parametrize("done", [1, 4, 5, 11])
def test_stream_goes_on_where_it_was(shards, done):
    whole = take(make(shards), 16)
    rest = take(make(shards, positions=[whole[done - 1].position], batches_done=done), 16 - done)
    assert contents(rest) == contents(whole[done:])
    assert [item.position for item in rest] == [item.position for item in whole[done:]]


@pytest.mark.parametrize("done", [3, 6])
def test_stream_of_two_workers_goes_on_where_it_was(shards, done):
    start = (Position(), Position())
    whole = take(make(shards, workers=2), 12, workers=2)
    assert [item.stream for item in whole] == [0, 1] * 6
    positions = list(start)
    for item in whole[:done]:
        positions[item.stream] = item.position
    rest = take(
        make(shards, positions=positions, batches_done=done, workers=2), 12 - done, workers=2
    )
    assert contents(rest) == contents(whole[done:])


def test_workers_and_processes_never_share_a_sample(shards):
    parts = [
        keys_of(take(make(shards, Share(process, 2), None, worker, batch_size=2, workers=2), 1))
        for process in range(2)
        for worker in range(2)
    ]
    assert len(set(itertools.chain(*parts))) == 8


def test_broken_samples_are_counted_named_and_skipped(shards, caplog):
    write_tar(
        shards / "d.tar", [("torn.jpg", jpeg()[:200]), ("torn.txt", b"a"), ("mute.jpg", jpeg())]
    )
    with caplog.at_level(logging.WARNING):
        loaded = take(make(shards, batch_size=8), 4)
    keys = keys_of(loaded)
    assert sorted(keys[:16]) == sorted(keys[16:]) and len(set(keys)) == 16
    assert loaded[-1].position.broken in (2, 3, 4)  # the second pass may end with one
    for key, reason in (("torn", "Truncated"), ("mute", "no caption")):
        assert any(key in line and "d.tar" in line and reason in line for line in caplog.messages)


def test_broken_samples_are_counted_by_reason(shards):
    odd = [
        ("torn.jpg", b"x"),
        ("torn.txt", b"a"),
        ("mute.jpg", jpeg()),
        ("bare.txt", b"a"),
        ("deep.jpg", jpeg()),
    ]
    write_tar(
        shards / "d.tar",
        [*odd, ("deep.json", b"[" * 200_000), ("dotted.v2.jpg", jpeg()), ("dotted.v2.txt", b"a")],
    )
    write_tar(shards / "e.tar", [("k" * 400 + ".jpg", jpeg()), ("k" * 400 + ".txt", b"a")])
    position = take(make(shards, batch_size=1, shuffle_buffer=1), 17)[-1].position
    assert (position.epoch, position.broken) == (0, 5)
    assert (
        counted(position.by_reason)
        == "2 no photo, 1 unreadable photo, 1 no caption, 1 unreadable captions"
    )


def test_shards_without_a_usable_sample_say_why(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [("dotted.v2.jpg", jpeg()), ("mute.jpg", jpeg())])
    (end,) = make(shard)
    assert str(end).endswith("a.tar can be used: 1 no photo, 1 no caption")


def test_position_counts_broken_samples_once(shards):
    write_tar(shards / "d.tar", [(f"torn{i}.jpg", b"x") for i in range(6)])
    whole = take(make(shards), 10)
    rest = take(make(shards, positions=[whole[4].position], batches_done=5), 5)
    assert [item.position for item in rest] == [item.position for item in whole[5:]]


@pytest.mark.parametrize("share", [Share(0, 1), Share(1, 2), Share(2, 7)])
def test_data_of_which_nothing_can_be_used_end_the_run(tmp_path, share):
    for name in ("p", "q"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}{i}.jpg", b"x") for i in range(4)])
    (item,) = build_loader(make(tmp_path, share), 0)
    assert isinstance(item, NoSamples)
    assert re.search(r"none of the \d+ samples read from .*p\.tar.*q\.tar can be used", str(item))


def test_shard_without_samples_ends_the_run(tmp_path):
    write_tar(tmp_path / "void.tar", [])
    (item,) = build_loader(make(tmp_path), 0)
    assert isinstance(item, NoSamples) and "void.tar" in str(item)


def test_a_share_that_is_empty_in_one_pass_waits_for_the_next(tmp_path):
    write_tar(tmp_path / "a.tar", pairs("xy"))
    for index in range(4):
        assert len(keys_of(take(make(tmp_path, Share(index, 4), batch_size=1), 3))) == 3


def test_folder_of_photos_is_a_source(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    loaded = take(make(tmp_path, shards=(), images=(str(tmp_path),), batch_size=5), 2)
    assert [sorted(item.batch.keys) for item in loaded] == [[f"{i}.jpg:" for i in range(5)]] * 2


def test_shuffle_gives_every_example_once():
    for size in (1, 3, 10, 50):
        assert sorted(shuffled(iter(range(20)), size, seed=1)) == list(range(20))
    assert list(shuffled(iter(range(20)), 1, seed=1)) == list(range(20))
    assert list(shuffled(iter(range(20)), 50, seed=1)) != list(
        shuffled(iter(range(20)), 50, seed=2)
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one of"),
        ({"shards": ("a",), "images": ("b",)}, "exactly one of"),
        ({"images": ("a",), "index": "b"}, "data.index 'b'"),
        ({"shards": ("a",), "shuffle_buffer": 0}, "data.shuffle_buffer is 0"),
        ({"shards": ("a",), "workers": -1}, "data.workers is -1"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        DataConfig(**settings).check()


ENTITIES = {
    "a0": "dog", "a1": "cat", "a2": "cat dog", "a3": "bus", "a4": "",
    "b0": "dog", "b1": "cat", "b2": "", "b3": "dog", "b4": "dog cat",
    "c0": "dog", "c1": "cat", "c2": "",
}  # fmt: skip
REDS = {key: 16 * number for number, key in enumerate(ENTITIES)}
PAIRED = {key: set(entities.split()) for key, entities in ENTITIES.items() if entities}


@pytest.fixture
def indexed(tmp_path):
    """Three shards of photos that their red tells apart, whose captions name what `ENTITIES` says,
    and their index.
    """
    for shard in "abc":
        keys = [key for key in ENTITIES if key[0] == shard]
        texts = [
            " and ".join(f"a {entity}" for entity in ENTITIES[key].split()) or "very blue"
            for key in keys
        ]
        photos = [Image.new("RGB", (40, 30), (REDS[key], 0, 0)) for key in keys]
        write_tar(tmp_path / "shards" / f"{shard}.tar", captioned(keys, photos, texts))
    write_index(tmp_path / "shards", tmp_path / "index")
    return {"folder": tmp_path / "shards", "index": str(tmp_path / "index")}


def partners_of(loaded):
    """The pass, the photo and (key, entity) of its partner, if any, of each sample.

    Batches are of one.
    """
    for item in loaded:
        ((key, _, *partner),) = (text.split(":") for text in item.batch.keys)
        match = [other for other, red in REDS.items() if partner and abs(red - int(partner[0])) < 4]
        assert len(match) == bool(partner)
        yield (item.position.epoch, key), (match[0], partner[1]) if partner else None


def test_photos_without_entity_are_passed_over_and_not_broken(indexed):
    loaded = take(make(**indexed, batch_size=5), 4)
    assert sorted(keys_of(loaded)) == sorted([*PAIRED] * 2)
    assert loaded[-1].position == Position(1, 10, 0)


def test_partner_is_another_photo_that_shares_the_entity(indexed):
    pairs = dict(partners_of(take(make(**indexed, batch_size=1), 300)))
    for (_, key), partner in pairs.items():
        if key == "a3":
            assert partner is None  # there is no other bus
        else:
            other, entity = partner
            assert other != key and entity in PAIRED[key] & PAIRED[other]
    drawn = {partner for (_, key), partner in pairs.items() if key == "a0"}
    assert drawn == {(other, "dog") for other in ("a2", "b0", "b3", "b4", "c0")}
    assert {partner[1] for (_, key), partner in pairs.items() if key == "a2"} == {"dog", "cat"}


def test_partners_follow_from_seed_pass_and_key_whatever_the_workers(indexed):
    alone = dict(partners_of(take(make(**indexed, batch_size=1), 40)))
    assert [alone[0, key] for key in PAIRED] != [alone[1, key] for key in PAIRED]
    for workers in (1, 2):
        several = dict(
            partners_of(take(make(**indexed, batch_size=1, workers=workers), 36, workers))
        )
        assert several.keys() & alone.keys() and len(several.keys() & alone.keys()) >= 30
        assert all(alone[place] == several[place] for place in several.keys() & alone.keys())
    shares = [
        dict(partners_of(take(make(**indexed, share=Share(i, 2), batch_size=1), 10)))
        for i in range(2)
    ]
    first = [{key for turn, key in part if turn == 0} for part in shares]
    assert first[0] | first[1] == set(PAIRED) and not first[0] & first[1]
    assert all(
        alone[place] == part[place] for part in shares for place in part.keys() & alone.keys()
    )


@pytest.mark.parametrize("done", [4, 13])
def test_indexed_stream_goes_on_where_it_was(indexed, done):
    whole = take(make(**indexed, batch_size=2), 18)
    rest = take(
        make(**indexed, batch_size=2, positions=[whole[done - 1].position], batches_done=done),
        18 - done,
    )
    assert contents(rest) == contents(whole[done:])
    assert [item.position for item in rest] == [item.position for item in whole[done:]]


def test_a_partner_that_cannot_be_read_is_none_and_named_once_a_pass(indexed, caplog, monkeypatch):
    monkeypatch.setattr(
        EntityIndex, "partner", lambda self, row, rng: ("dog", Example("d", "d.tar", b"torn"))
    )
    with caplog.at_level(logging.WARNING):
        loaded = take(make(**indexed, batch_size=1), 20)
    assert not any(partner for _, partner in partners_of(loaded))
    assert loaded[-1].position == Position(1, 10, 0)
    assert len([line for line in caplog.messages if "no partner for sample" in line]) == 2


def test_no_partner_is_read_for_a_transform_that_takes_none(indexed, monkeypatch):
    asked = []
    monkeypatch.setattr(EntityIndex, "partner", lambda self, row, rng: asked.append(row))
    stream = make(**indexed, batch_size=5)
    take(stream, 2)
    assert len(asked) == len(PAIRED)
    stream.transform = KeyTransform()
    assert sorted(keys_of(take(stream, 2))) == sorted(PAIRED) and len(asked) == len(PAIRED)


def test_broken_photos_are_counted_with_an_index_too(indexed):
    (indexed["folder"] / "d.tar").write_bytes(b"")
    write_tar(
        indexed["folder"] / "d.tar",
        [("torn.jpg", b"x"), ("torn.txt", b"a dog"), ("mute.jpg", jpeg())],
    )
    write_index(indexed["folder"], Path(indexed["index"]).with_name("again"))
    indexed["index"] = str(Path(indexed["index"]).with_name("again"))
    loaded = take(make(**indexed, batch_size=1, shuffle_buffer=1), 30)
    assert sorted(keys_of(loaded)) == sorted([*PAIRED] * 3)
    assert 4 <= loaded[-1].position.broken <= 6


@pytest.mark.skipif(
    not Path("/proc/self/io").is_file(), reason="the system does not count the bytes that are read"
)
def test_the_shard_of_a_partner_is_not_read_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 2**23, dtype=np.uint8).tobytes()
    large = [("x.jpg", jpeg()), ("x.txt", b"a dog"), ("y.jpg", noise), ("y.txt", b"a cat")]
    write_tar(tmp_path / "shards" / "a.tar", [*large, ("z.jpg", jpeg(1)), ("z.txt", b"a dog")])
    write_index(tmp_path / "shards", tmp_path / "index")
    index = EntityIndex.open(tmp_path / "index", find_shards([str(tmp_path / "shards")]))
    for key, other in (("x", "z"), ("z", "x")):
        before = bytes_read()
        entity, example = index.partner(index.find(key), np.random.default_rng(0))
        assert (entity, example.key) == ("dog", other)
        assert bytes_read() - before < 2**20


def bytes_read():
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def test_the_same_photos_in_another_folder_give_the_same_batches(tmp_path, monkeypatch):
    for folder in ("one", "two/deeper"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in ("a.jpg", "sub/b.png", "sub/c.jpg", "d.jpg"):
            (tmp_path / folder / name).write_bytes(jpeg())
    monkeypatch.chdir(tmp_path / "two")
    places = (str(tmp_path / "one"), str(tmp_path / "two/deeper"), "deeper/")
    seen = [
        contents(take(make(tmp_path, shards=(), images=(place,), batch_size=2), 4))
        for place in places
    ]
    assert seen[0] == seen[1] == seen[2]


def test_photos_of_two_folders_with_one_name_are_told_apart_or_refused(tmp_path):
    folders = tuple(str(tmp_path / name) for name in "xy")
    for folder in folders:
        Path(folder).mkdir()
        (Path(folder) / "a.jpg").write_bytes(jpeg())
    loaded = take(make(tmp_path, shards=(), images=folders, batch_size=2), 1)
    assert sorted(keys_of(loaded)) == ["0/a.jpg", "1/a.jpg"]
    assert len(set(contents(loaded)[0][1])) == 2

    class MapTransform(KeyTransform):
        reads_maps = True

    with pytest.raises(
        ValueError, match=r"x/a\.jpg and .*y/a\.jpg have one name, a: maps of photos"
    ):
        Stream(DataConfig(images=folders), MapTransform(), 2, 5, Share(0, 1))
    assert Stream(DataConfig(images=folders[:1]), MapTransform(), 2, 5, Share(0, 1)).units


@pytest.mark.parametrize(("workers", "done"), [(0, 0), (2, 0), (2, 5), (0, 17)])
def test_partners_are_read_once_the_training_uses_them(tmp_path, workers, done):
    shapes.write(tmp_path / "data", 12, finder=EntitySet.read("shapes"))
    index = str(tmp_path / "data" / shapes.INDEX)
    data = DataConfig(
        shards=(str(tmp_path / "data"),), index=index, workers=workers, shuffle_buffer=4
    )
    stream = Stream(data, KeyTransform(True, start=0.75), 2, 5, Share(0, 1))
    stream.go_to(stream.positions, done, 20)
    loaded = take(stream, 20 - done, workers)
    paired = [any(key.count(":") > 1 for key in item.batch.keys) for item in loaded]

    # Batch 15 of 20 is the first that needs partners; the one before it may have them.
    for number, has in enumerate(paired, start=done):
        assert has == (number >= 14), (number, paired)

    # A transform that starts with partners has them from the first batch on.
    first = Stream(data, KeyTransform(True), 2, 5, Share(0, 1))
    first.go_to(first.positions, 0, 20)
    assert ":" in take(first, 1, workers)[0].batch.keys[0].split(":", 2)[2]


def test_samples_without_text_come_with_an_empty_caption_where_they_teach(tmp_path):
    entries = [("mute.jpg", jpeg()), ("bare.txt", b"a"), *pairs(["told"])]
    shard = write_tar(tmp_path / "a.tar", entries)
    data = DataConfig(shards=(str(shard),), workers=0)
    loaded = take(Stream(data, KeyTransform(without_captions=True), 2, 5, Share(0, 1)), 1)[0]
    assert sorted(loaded.batch.keys) == ["mute:", "told:told,toldtold"]
    assert counted(loaded.position.by_reason) in ("", "1 no photo")
    assert keys_of(take(Stream(data, KeyTransform(), 1, 5, Share(0, 1)), 1)) == ["told"]


def test_sources_are_read_by_their_weights_and_all_shards_alike():
    parts = [[f"a{number}" for number in range(6)], [f"b{number}" for number in range(5)], ["c"]]
    sources = Sources.of(parts, (2.0, 0.5, 1.0))
    seen = [sources.of_pass(7, epoch) for epoch in range(20)]
    counts = Counter(unit for units in seen for unit in units)
    assert {counts[unit] for unit in parts[0]} == {20}
    assert {counts[unit] for unit in parts[1]} == {5}
    assert counts["c"] == 10
    assert all(len(set(units)) == len(units) for units in seen)
    assert seen == [sources.of_pass(7, epoch) for epoch in range(20)]

    # Without weights a pass is all shards in their order, and weight 0 is never read.
    assert Sources.of(parts, ()).of_pass(7, 3) == sources.units
    assert set(Sources.of(parts, (1, 0, 1)).of_pass(7, 3)) == {*parts[0], "c"}


def test_weighted_shards_make_a_stream_of_each_pass(shards):
    names = [str(shards / f"{name}.tar") for name in "abc"]
    data = DataConfig(shards=tuple(names), weights=(1, 0.5, 1), workers=0, shuffle_buffer=1)
    loaded = take(Stream(data, KeyTransform(), 1, 5, Share(0, 1)), 25)
    keys = [(item.position.epoch, item.batch.keys[0][0]) for item in loaded]
    # Passes of 9 and 16 samples take turns.
    assert Counter(epoch for epoch, _ in keys) == {0: 9, 1: 16}
    assert {name for epoch, name in keys if epoch == 0} == {"a", "c"}


@pytest.mark.parametrize(
    ("weights", "words"), [((1.0,), "has 1 numbers for 2"), ((0.0, 0.0), "are all 0")]
)
def test_bad_weights_are_named(weights, words):
    with pytest.raises(ValueError, match=words):
        DataConfig(shards=("a.tar", "b.tar"), weights=weights).check()
