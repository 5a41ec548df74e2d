import json
import pickle

import pytest
import tokenizers
import torch

from maskfree.data import shapes
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
    copies = [
        Tokenizer.from_file(tmp_path / "tokenizer.json"),
        pickle.loads(pickle.dumps(tiny_tokenizer)),
    ]
    for copy in copies:
        assert copy.max_length == tiny_tokenizer.max_length
        assert copy.vocabulary_size == tiny_tokenizer.vocabulary_size
        assert torch.equal(copy(CAPTIONS).ids, tiny_tokenizer(CAPTIONS).ids)


def test_lower_case(tiny_tokenizer):
    pieces = {"[UNK]": 0, "a": 1, "A": 2, "dog": 3, "Dog": 4}
    model = tokenizers.models.WordPiece(vocab=pieces, unk_token="[UNK]")
    cased = tokenizers.Tokenizer(model)
    cased.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for normalizer in (None, tokenizers.normalizers.Strip()):
        if normalizer is not None:
            cased.normalizer = normalizer
        tokenizer = Tokenizer(cased, max_length=7)
        small = tokenizer.lower_case()
        assert small(["A Dog"]).ids.tolist() == [[1, 3]] and small.max_length == 7
        assert tokenizer(["A Dog"]).ids.tolist() == [[2, 4]]
        assert small.lower_case() is small
    # BERT's normalizer ignores case already.
    assert tiny_tokenizer.lower_case() is tiny_tokenizer


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


@pytest.mark.parametrize("family", ["bert", "clip", "roberta", "vit"])
def test_a_model_without_tokenizer_files_is_refused(tmp_path, family):
    """For some of them transformers makes a tokenizer of special tokens alone, to which every text
    is the same.
    """
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    with pytest.raises(FileNotFoundError, match="no tokenizer in") as caught:
        Tokenizer.from_source(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_list_of_words_is_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "sky"])
    )
    assert Tokenizer.from_source(str(tmp_path))(["dog sky"]).ids.tolist() == [[2, 5, 6, 3]]


def test_mask_token_in_a_text_is_one_token(tmp_path):
    shapes.write(tmp_path / "data", 4)
    first = Tokenizer.from_source(str(tmp_path / "data"))
    first.save(tmp_path / "copy.json")
    for tokenizer in (
        first,
        Tokenizer.from_file(tmp_path / "copy.json"),
        pickle.loads(pickle.dumps(first)),
    ):
        assert tokenizer.mask_token == "[MASK]"
        ids = tokenizer(["A photo [MASK], and [MASK]'s"]).ids[0]
        assert (ids == tokenizer.mask_id).sum() == 2
        assert len(ids) == 10  # the others are: a photo , and ' s, and both ends


def test_mask_token_may_be_spelt_as_robertas():
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"dog": 0, "<mask>": 1}, unk_token="dog")
    )
    model.add_special_tokens(["<mask>"])
    assert (Tokenizer(model).mask_token, Tokenizer(model).mask_id) == ("<mask>", 1)


def test_a_tokenizer_that_has_no_mask_token_says_so():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"dog": 0}, unk_token="dog"))
    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({"[UNK]": 0, "[MASK]": 1, "[": 2}, unk_token="[UNK]")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    for tokenizer in (
        Tokenizer(words),
        Tokenizer(model),
    ):  # the second's is no special token, so texts split it
        with pytest.raises(ValueError, match="no mask token") as caught:
            _ = tokenizer.mask_id
        assert "\n" not in str(caught.value)
