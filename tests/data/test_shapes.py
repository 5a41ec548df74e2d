"""The drawn photos are what their captions say, and the shards are ones that the loader reads."""

import numpy as np
import pytest

from maskfree.data import shapes
from maskfree.data.examples import decode
from maskfree.data.shards import find_shards, read_shards
from maskfree.text.tokenize import Tokenizer


def test_captions_name_the_colours_that_are_seen():
    rng = np.random.default_rng(0)
    for _ in range(20):
        photo, captions = shapes.draw(rng)
        pixels = np.asarray(photo).reshape(-1, 3).astype(int)
        for name, colour in shapes.COLOURS.items():
            share = (np.abs(pixels - colour).max(axis=1) < 30).mean()
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
