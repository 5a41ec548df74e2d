"""Words that a model does not know, or cannot tell apart, are named."""

from __future__ import annotations

import logging

import pytest
import tokenizers
import torch
from torch.nn import functional as F

from maskfree import cli
from maskfree.inference.segmenter import Segmenter
from maskfree.text.known_words import check_distinct
from maskfree.text.tokenize import Tokenizer
from maskfree.text.vocabulary import Vocabulary


@pytest.fixture
def segmenter(tiny_vilseg, tiny_tokenizer: Tokenizer) -> Segmenter:
    return Segmenter(tiny_vilseg, tiny_tokenizer, name="tiny")


@pytest.fixture(scope="module")
def of_bytes() -> Tokenizer:
    """A tokenizer of CLIP's kind."""
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>")
    )
    model.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()]
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<|startoftext|>", "<|endoftext|>", *(f"{letter}</w>" for letter in letters)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, special_tokens=special, show_progress=False
    )
    model.train_from_iterator(["a photo of a dog"], trainer)
    return Tokenizer(model)


@pytest.mark.parametrize(
    "words",
    [
        ["dog", "🌳"],
        ["🌳", "🏯", "☁️"],
        ["树", "天空"],
        ["dog/🌳"],
        ["[UNK]"],
        ["\u0301"],
        ["🌳 !"],
        ["👩‍🌾"],
    ],
)
def test_a_word_that_the_model_does_not_know_is_refused_by_name(
    segmenter: Segmenter, words: list[str]
):
    with pytest.raises(ValueError, match="the model tiny does not know") as refused:
        segmenter.with_words(words)
    named = [word for phrase in words for word in phrase.split("/") if word != "dog"]
    assert all(repr(word) in str(refused.value) for word in named)
    assert "dog" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_background_words_are_refused_too(segmenter: Segmenter):
    with pytest.raises(ValueError, match="does not know '树'"):
        segmenter.with_words(["dog"], "words:树,sky")


def test_a_word_that_is_known_in_part_is_warned_of(
    segmenter: Segmenter, caplog: pytest.LogCaptureFixture
):
    segmenter.with_words(["dog", "cat 🌳"], "none")
    assert caplog.messages == ["the model tiny knows only a part of 'cat 🌳', and not the rest"]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        (["café", "cafe"], "'café' from 'cafe'"),
        (["dog", "cat 🌳", "cat 🏯"], "'cat 🌳' from 'cat 🏯'"),
        (["cafe\u0301", "dog", "café"], "'cafe\u0301' from 'café'"),
        (["a" * 80 + " dog", "a" * 80 + " cat"], "dog' from"),  # cut to the tokenizer's length
    ],
)
def test_words_of_the_same_tokens_are_refused_by_name(
    segmenter: Segmenter, words: list[str], pair: str
):
    with pytest.raises(ValueError, match="the model tiny cannot tell") as refused:
        segmenter.with_words(words)
    assert pair in str(refused.value)


def test_a_word_may_be_the_same_as_its_synonym(segmenter: Segmenter):
    assert segmenter.with_words(["café/cafe", "dog"]).vocabulary == Vocabulary(
        (("café", "cafe"), ("dog",))
    )


def test_known_words_raise_no_alarm(segmenter: Segmenter, caplog: pytest.LogCaptureFixture):
    segmenter.with_words(["dog", "tv monitor", "naïve", "Café 12"], "words:sky,street")
    assert not caplog.messages


def test_letters_without_a_word_are_warned_of(caplog: pytest.LogCaptureFixture, tiny_vilseg):
    vocabulary = ["[PAD]", "[UNK]", "dog", "天", "空", "д", "##о", "##м", "a", "photo", "of"]
    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {
                piece: index
                for index, piece in enumerate([*vocabulary, *(f"word{i}" for i in range(50))])
            },
            unk_token="[UNK]",
        )
    )
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tiny = Segmenter(tiny_vilseg, Tokenizer(model), name="tiny")
    tiny.with_words(["天空", "дом", "dog"])
    assert caplog.messages == [
        "the model tiny knows the letters of '天空', 'дом', hardly the meaning"
    ]


def test_a_tokenizer_of_chinese_letters_knows_them():
    letters = [chr(0x4E00 + index) for index in range(100)]
    vocabulary = {piece: index for index, piece in enumerate(["[PAD]", "[UNK]", *letters])}
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    assert not Tokenizer(model).spells(letters[3])


def test_a_tokenizer_of_bytes_knows_everything(of_bytes: Tokenizer):
    for word in ("🌳", "树", "天空", "дом", "dog"):
        assert of_bytes.knows(word)
        assert not of_bytes.unknown(word)
        assert not of_bytes.spells(word)


def test_embeddings_that_are_the_same_or_nearly(caplog: pytest.LogCaptureFixture):
    ids = [(0,), (1,), (2,), (3,)]
    embeddings = F.normalize(torch.eye(4), dim=-1)
    check_distinct(list("abcd"), [0, 1, 2, 3], ids, embeddings, "tiny")
    assert not caplog.messages
    embeddings[2] = F.normalize(embeddings[0] + 0.01 * embeddings[3], dim=0)  # cosine 0.99995
    check_distinct(list("abcd"), [0, 1, 2, 3], ids, embeddings, "tiny")
    assert caplog.messages == ["the model tiny can hardly tell 'a' from 'c'"]
    embeddings[2] = embeddings[0]
    check_distinct(list("abcd"), [0, 1, 0, 2], ids, embeddings, "tiny")
    with pytest.raises(ValueError, match="the model tiny cannot tell 'a' from 'c': leave one out"):
        check_distinct(list("abcd"), [0, 1, 2, 3], ids, embeddings, "tiny")


def test_many_words_are_named_in_a_short_line(segmenter: Segmenter):
    with pytest.raises(ValueError, match="and 25 more") as refused:
        segmenter.with_words([chr(0x4E00 + index) for index in range(30)])
    assert len(str(refused.value)) < 200
    with pytest.raises(ValueError, match="and others") as refused:
        segmenter.with_words([f"cat {chr(0x4E00 + index)}" for index in range(300)])
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("words", [["🌳", "🏯", "☁️"], ["树", "天空"]])
def test_the_bundled_model_refuses_what_it_does_not_know(
    words: list[str], tmp_path, photo, capsys: pytest.CaptureFixture[str]
):
    photo((40, 30)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as left:
        cli.main(
            ["segment", str(tmp_path / "a.png"), "--words", *words, "--out", str(tmp_path / "out")]
        )
    assert left.value.code == 2
    assert f"the model pocket does not know {words[0]!r}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
