"""Every family of image-text models the whole way: text side, tokenizer, segmenter, checkpoint,
conversion and student.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from image_text_models import FAMILIES, image_text_model
from maskfree.cli import main
from maskfree.hub import checkpoint, loading
from maskfree.inference.config import Inference
from maskfree.methods.maskclip.model import MaskCLIP
from maskfree.methods.maskclip.published import maskclip_config, published_clip
from maskfree.methods.student.config import StudentConfig
from maskfree.nn.dense_clip_config import NACLIP, TRAINED
from maskfree.nn.image_text_families import IMAGE_TEXT_FAMILIES
from maskfree.text.templates import TEMPLATES
from tiny import CAPTIONS

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}
LENGTH = 32
SCALE = 40.0


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family: str) -> Any:
    torch.manual_seed(0)
    return scaled(image_text_model(family))


@torch.no_grad()
def scaled(model: Any) -> Any:
    """Set the factor on cosines to `SCALE`."""
    if hasattr(model, "temperature"):
        model.temperature.fill_(1 / SCALE)
    else:
        model.logit_scale.fill_(torch.tensor(SCALE).log())
    return model


@pytest.fixture
def folder(model: Any, tmp_path: Path, tiny_tokenizer) -> Path:
    """Folder that transformers saved, with a tokenizer."""
    place = tmp_path / "a-model"
    model.save_pretrained(place)
    tiny_tokenizer.save(place / "tokenizer.json")
    return place


@torch.no_grad()
def text_features(family: str, model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Text features of transformers for texts that are padded to the full length."""
    if family in ("siglip", "siglip2"):
        # SigLIP was trained without a mask.
        return model.get_text_features(input_ids=ids).pooler_output
    return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


@torch.no_grad()
def test_text_side_is_that_of_transformers(family, model, folder):
    config, tokenizer = published_clip(str(folder))
    method = config.build().eval()
    assert method.logit_scale == pytest.approx(SCALE, rel=1e-4)
    tokens = tokenizer(CAPTIONS[:3])
    missing = LENGTH - tokens.ids.shape[1]
    assert missing > 0 and not tokens.mask.all()
    ids = F.pad(tokens.ids, (0, missing))
    features = text_features(family, model, ids, F.pad(tokens.mask.long(), (0, missing)))
    assert_close(method.encode_text(tokens), F.normalize(features, dim=1), **TOLERANCE)


@torch.no_grad()
def test_scores_are_cosines_of_patches_and_texts(model, folder):
    config, tokenizer = published_clip(str(folder))
    method = config.build().eval()
    images, classes = torch.rand(2, 3, 24, 40), method.encode_text(tokenizer(CAPTIONS[:4]))
    scores = method.segment(images, classes)
    embeddings = method.image(images)
    for row, column in ((0, 0), (1, 4), (2, 3)):
        one = F.normalize(embeddings[1, :, row, column], dim=0)
        assert_close(scores[1, :, row, column], classes @ one, **TOLERANCE)


PROMPTS = {
    "clip": "imagenet",
    "metaclip_2": "imagenet",
    "siglip": "siglip",
    "siglip2": "siglip",
    "tipsv2": "tipsv2",
}


def test_folder_is_read_as_is_best_for_its_family(family, folder, photo):
    segmenter = loading.load(folder)
    block = NACLIP if family in ("clip", "metaclip_2") else TRAINED
    assert segmenter.method.image.last_block == block
    assert segmenter.templates == TEMPLATES[PROMPTS[family]]
    small = segmenter.with_inference(Inference(side_px=64, score="softmax"))
    result = small.with_words(["dog", "grass"], templates="plain")(photo((83, 57)))
    assert result.labels.shape == (57, 83) and set(result.words) == {"dog", "grass"}


@torch.no_grad()
def test_checkpoint_needs_the_weights_no_more(family, folder, tmp_path, photo):
    config, tokenizer = published_clip(str(folder), "clearclip")
    method = config.build().eval()
    about = {"name": "copy", "templates": ["{}"], "inference": {"side_px": 64}}
    checkpoint.save(tmp_path / "copy", method, config.for_inference(), tokenizer, about)
    shutil.rmtree(folder)

    segmenter = loading.load(tmp_path / "copy")
    assert isinstance(segmenter.method, MaskCLIP)
    assert segmenter.method.image.last_block == config.image.last_block
    images, tokens = torch.rand(2, 3, 24, 40), tokenizer(CAPTIONS)
    assert_close(segmenter.method.image(images), method.image(images))
    again = segmenter.tokenizer(CAPTIONS)
    assert_close(segmenter.method.encode_text(again), method.encode_text(tokens))
    assert segmenter.method.logit_scale == pytest.approx(SCALE, rel=1e-4)
    assert segmenter.with_words(["dog", "grass"])(photo((83, 57))).labels.shape == (57, 83)


def test_conversion_on_the_command_line(folder, tmp_path):
    out = tmp_path / "converted"
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "clip", str(folder), str(out), "--last-block", "naclip"])
    assert not stopped.value.code
    direct, converted = loading.load(f"naclip:{folder}"), loading.load(out)
    assert converted.templates == direct.templates and converted.inference == direct.inference
    assert converted.method.image.last_block == NACLIP
    for name, tensor in converted.method.state_dict().items():
        assert torch.equal(tensor, direct.method.state_dict()[name]), name


@torch.no_grad()
def test_student_takes_over_the_text_side(folder, tiny_tokenizer):
    config = maskclip_config(str(folder))
    parts, teacher = config.student_parts(), config.build().eval()
    student = StudentConfig(
        text=parts.text,
        text_projection=parts.text_projection,
        embed_dim=parts.embed_dim,
        synonyms=(1,),
    )
    text = student.build().text.eval()
    text.load_state_dict(teacher.text.state_dict())
    assert parts.modality_gap
    tokens = tiny_tokenizer(CAPTIONS)
    assert_close(text(tokens), teacher.encode_text(tokens))


def letters() -> list[str]:
    return list("▁abcdefghijklmnopqrstuvwxyz,.")


def xlm_roberta() -> Any:
    """The tokenizer of MetaCLIP 2, with few words."""
    words = [("▁" + word, -2.0 - number / 10) for number, word in enumerate(("a", "dog", "on"))]
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    single = [(letter, -8.0) for letter in letters()]
    vocabulary = [*special, *words, *single, ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary)


def byte_pairs(kind: str, special: list[str]) -> Any:
    """A tokenizer of byte pairs, with few of them."""
    vocabulary = {token: number for number, token in enumerate([*special, *letters()])}
    merges = [("▁", "a"), ("d", "o"), ("do", "g")]
    for first, second in merges:
        vocabulary[first + second] = len(vocabulary)
    return getattr(transformers, kind)(vocab=vocabulary, merges=merges)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "metaclip_2": xlm_roberta,
    "siglip2": lambda: byte_pairs(
        "Siglip2Tokenizer", ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    ),
    "tipsv2": lambda: byte_pairs("Tipsv2Tokenizer", ["<pad>", "<unk>"]),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer_is_that_of_the_processor(name, tmp_path):
    torch.manual_seed(0)
    model, their = image_text_model(name), TOKENIZERS[name]()
    # MetaCLIP 2 ends a text with </s>, whose number is 2.
    model.config.text_config.eos_token_id = 2
    if name == "metaclip_2":
        model.text_model.eos_token_id = 2
    model.save_pretrained(tmp_path)
    their.save_pretrained(tmp_path)
    config, tokenizer = published_clip(str(tmp_path))
    texts = ["a dog", "A Dog, on grass.", "a dog " * LENGTH, "dog"]
    # Published tokenizers of SigLIP 2 pad to the right, as in training.
    their.padding_side = "right"
    read = their(
        texts,
        padding="max_length",
        max_length=LENGTH,
        truncation=True,
        return_tensors="pt",
        return_attention_mask=True,
    )
    tokens = tokenizer(texts)
    assert_close(tokens.ids, read.input_ids)
    assert_close(tokens.mask.long(), read.attention_mask)
    features = text_features(name, model, read.input_ids, read.attention_mask)
    embedded = config.build().eval().encode_text(tokens)
    assert_close(embedded, F.normalize(features, dim=1), **TOLERANCE)


def test_other_tokenizer_replaces_that_of_the_weights(folder, tmp_path):
    """With its padding token, which a SigLIP attends to, and in lower case where need be."""
    pieces = {"[UNK]": 0, "[PAD]": 7, "a": 1, "A": 2, "dog": 3}
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=pieces, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (tmp_path / "words").mkdir()
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    (folder / "tokenizer.json").unlink()
    config, tokenizer = published_clip(str(folder), words=str(tmp_path / "words"))
    facts = IMAGE_TEXT_FAMILIES[config.text.family]
    assert tokenizer(["A dog"]).ids.tolist() == [[1, 3] if facts.lower_case else [2, 3]]
    assert config.text.architecture.get("pad_token_id") == (7 if facts.fills_texts else None)


def test_temperature_may_be_missing(tmp_path):
    model = image_text_model("tipsv2")
    weights = {name: each for name, each in model.state_dict().items() if name != "temperature"}
    model.save_pretrained(tmp_path, state_dict=weights)
    method = maskclip_config(str(tmp_path)).build()
    assert method.logit_scale == pytest.approx(1 / 0.005065968260169029, rel=1e-5)


def test_towers_of_two_families_do_not_fit(folder):
    config = maskclip_config(str(folder))
    other = "siglip" if config.text.family == "clip" else "clip"
    with pytest.raises(ValueError, match=rf"the text tower a {other}'s"):
        replace(config, text=replace(config.text, family=other)).build()
