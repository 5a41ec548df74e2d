import pickle

import pytest
import tokenizers
import torch

from maskfree.text.tokenize import Tokenizer
from tiny import CAPTIONS


def test_pads_to_the_longest_and_marks_the_padding(tiny_tokenizer):
    tokens = tiny_tokenizer(["dog", CAPTIONS[0], "a cat"])
    lengths = [len(tiny_tokenizer([text]).ids[0]) for text in ("dog", CAPTIONS[0], "a cat")]
    assert tokens.ids.shape == (3, max(lengths))
    assert tokens.mask.sum(1).tolist() == lengths
    assert (tokens.ids[~tokens.mask] == 0).all()


def test_long_texts_are_cut_and_keep_their_end_token(tiny_tokenizer):
    tokens = tiny_tokenizer([" ".join(CAPTIONS)])
    assert tokens.ids.shape == (1, tiny_tokenizer.max_length)
    assert tokens.ids[0, -1] == 3


def test_saved_tokenizer_gives_the_same_tokens(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path / "tokenizer.json")
    copies = [Tokenizer.from_file(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tiny_tokenizer))]
    for copy in copies:
        assert copy.max_length == tiny_tokenizer.max_length
        assert copy.vocabulary_size == tiny_tokenizer.vocabulary_size
        assert torch.equal(copy(CAPTIONS).ids, tiny_tokenizer(CAPTIONS).ids)


def test_source_may_be_a_folder(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path / "tokenizer.json")
    shorter = Tokenizer.from_source(str(tmp_path), max_length=5)
    assert shorter(CAPTIONS).ids.shape == (len(CAPTIONS), 5)


def test_empty_text_and_empty_batch_have_shapes_that_encoders_take(tiny_tokenizer):
    bare = Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel({"dog": 0}, unk_token="dog")))
    assert bare([""]).mask.tolist() == [[True]]
    assert tiny_tokenizer([]).ids.shape == (0, 0)


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}'])
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer.json is not a tokenizer file") as caught:
        Tokenizer.from_file(path)
    assert "\n" not in str(caught.value)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        Tokenizer.from_source(str(tmp_path))
