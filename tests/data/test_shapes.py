"""The drawn photos are what their captions say, and the shards are ones that the loader reads."""

import numpy as np
import pytest

from maskfree.data import shapes
from maskfree.data.entities.index import EntityIndex
from maskfree.data.examples import decode
from maskfree.data.shards import find_shards, read_shards
from maskfree.text.entities import EntitySet
from maskfree.text.tokenize import Tokenizer


def test_captions_name_the_colors_that_are_seen():
    rng = np.random.default_rng(0)
    for _ in range(20):
        photo, captions = shapes.draw(rng)
        pixels = np.asarray(photo).reshape(-1, 3).astype(int)
        for name, color in shapes.COLORS.items():
            share = (np.abs(pixels - color).max(axis=1) < 30).mean()
            assert [name in caption for caption in captions] == [share > 0.01] * 2


@pytest.mark.parametrize("photos", [2, 9])
def test_written_once_and_readable(tmp_path, photos):
    folder = tmp_path / "data"
    shapes.write(folder, photos)
    examples = list(read_shards(find_shards([str(folder)])))
    assert len({e.key for e in examples}) == len(examples) == photos
    assert {decode(e, 512).size for e in examples} == {(144, 112)}
    tokens = Tokenizer.from_source(str(folder))([*examples[0].captions, "an unknown word"])
    unknown = Tokenizer.from_source(str(folder))(["[UNK]"]).ids[0, 1]
    assert not (tokens.ids == unknown).any()
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    shapes.write(folder, photos)
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert list(tmp_path.iterdir()) == [folder]
    shapes.write(tmp_path / "again", photos)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_index_knows_the_shapes_and_colors_that_captions_name(tmp_path):
    finder = EntitySet.read("shapes")
    assert finder.entities == (*shapes.SHAPES, *shapes.COLORS)
    shapes.write(tmp_path / "data", 12, finder=finder)
    shards = find_shards([str(tmp_path / "data")])
    index = EntityIndex.open(tmp_path / "data" / shapes.INDEX, shards)
    examples = {example.key: example for example in read_shards(shards)}
    assert len(index) == len(examples) == 12
    named = {
        key: {name for name in finder.entities if name in e.captions[0].split()}
        for key, e in examples.items()
    }
    for key in examples:
        row = index.find(key)
        assert row is not None and set(index.entities_of(row)) == named[key]
        found = index.partner(row, np.random.default_rng(0))
        assert found and found[1].key != key and found[0] in named[key] & named[found[1].key]
        assert found[1].photo == examples[found[1].key].photo
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
