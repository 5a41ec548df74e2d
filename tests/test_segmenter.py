from __future__ import annotations

import io
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.hub import loading
from maskfree.inference import photos as reading
from maskfree.inference.config import Inference
from maskfree.inference.photos import PhotoError
from maskfree.inference.segmenter import Segmenter
from maskfree.method import Method
from maskfree.ops.class_prior import apply_class_prior, class_levels, smooth
from maskfree.text.background import Background
from maskfree.types import Batch, Groups, Losses, Tokens

COLORS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "scarlet": (0.9, 0.1, 0.05),
}


class Colors(Method):
    """Knows colors by name: a patch scores by the cosine of its mean color to the word's."""

    def __init__(self, patch_size: int = 16):
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(list(COLORS.values())))
        self.stride = patch_size
        self.seen: list[tuple[int, ...]] = []
        self.num_texts = 0

    def forward(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def encode_text(self, tokens: Tokens) -> Tensor:
        self.num_texts += len(tokens.ids)
        return F.normalize(self.table[tokens.ids[:, 0]].float(), dim=-1)

    def group(self, images: Tensor) -> Groups:
        assert torch.is_inference_mode_enabled()
        self.seen.append(tuple(images.shape))
        self.images = images
        patches = F.normalize(F.avg_pool2d(images, self.stride) + 1e-6, dim=1)
        overall = F.normalize(patches.mean((2, 3)), dim=1)
        return Groups(patches.flatten(2).mT, None, overall, (patches.shape[2], patches.shape[3]))

    @property
    def logit_scale(self) -> float:
        return 12.0

    @property
    def patch_size(self) -> int:
        return self.stride


def tokenize(texts: Sequence[str]) -> Tokens:
    ids = torch.tensor([[list(COLORS).index(text.split()[-1])] for text in texts])
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.fixture
def segmenter() -> Segmenter:
    return Segmenter(method=Colors(), tokenizer=tokenize, name="colors", weights_hash="abc")


def two_halves(
    width: int = 640, height: int = 480, left: str = "red", right: str = "green"
) -> Image.Image:
    image = Image.new("RGB", (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def test_each_half_gets_its_word_at_full_size(segmenter: Segmenter):
    result = segmenter.with_words(["red", "green"])(two_halves(right="lime"))
    assert result.labels.shape == result.scores.shape == (480, 640)
    assert (result.labels[:, :310] == 0).all()
    assert (result.labels[:, 330:] == 1).all()
    assert result.scores[:, [0, -1]].min() > 0.99
    assert result.areas()["red"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("side_px", [64, 100, 448])
@pytest.mark.parametrize("patch_size", [8, 14, 16, 32])
def test_padding_does_not_move_the_border(side_px: int, patch_size: int):
    segmenter = Segmenter(
        method=Colors(patch_size), tokenizer=tokenize, inference=Inference(side_px=side_px)
    )
    image = two_halves(210, 330, right="lime").transpose(Image.Transpose.ROTATE_90)  # red is below
    labels = segmenter.with_words(["red", "green"])(image).labels
    border = np.argmax(labels[:, 100] == 0)
    patch_px = patch_size * 210 / side_px
    assert abs(border - 105) <= 0.5 * patch_px


def test_padding_repeats_the_border_and_is_cut_off_exactly():
    segmenter = Segmenter(method=Colors(16), tokenizer=tokenize, inference=Inference(side_px=40))
    image = Image.new("RGB", (40, 60), "lime")
    image.paste("red", (0, 0, 16, 60))  # one of two and a half patches
    labels = segmenter.with_words(["red", "green"])(image).labels
    assert (labels[:, :16] == 0).all()
    assert (labels[:, 16:] == 1).all()
    shown = segmenter.method.images
    assert shown.shape == (1, 3, 64, 48)
    assert torch.equal(shown[..., 40:], shown[..., 39:40].expand(-1, -1, -1, 8))
    assert torch.equal(shown[:, :, 60:], shown[:, :, 59:60].expand(-1, -1, 4, -1))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (3, 1), (2, 3000), (3000, 1), (17, 33), (449, 448), (1300, 900)]
)
def test_any_size(segmenter: Segmenter, size: tuple[int, int]):
    result = segmenter.with_words(["red", "green"])(Image.new("RGB", size, "red"))
    assert result.labels.shape == (size[1], size[0])
    assert (result.labels == 0).all()
    for shape in segmenter.method.seen:
        assert shape[2] % 16 == shape[3] % 16 == 0
        assert max(shape[2:]) <= 2048 + 16


def test_long_photos_go_through_windows_that_cover_them(segmenter: Segmenter):
    result = segmenter.with_words(["red", "green"])(two_halves(4480, 1000, right="lime"))
    assert all(shape[2:] == (448, 448) for shape in segmenter.method.seen)
    assert (
        sum(shape[0] for shape in segmenter.method.seen) == 8
    )  # 2007 px in steps of 224, the last one shifted back
    assert (result.labels[:, :2200] == 0).all()
    assert (result.labels[:, 2280:] == 1).all()


def test_windows_average_to_what_the_whole_gives(segmenter: Segmenter, photo):
    model = segmenter.with_words(["red", "green", "blue"])
    settings = Inference(side_px=96, max_whole_px=64, window_px=64, stride_px=32)
    windows = model.with_inference(settings).score_map(photo((170, 120)))
    whole = model.with_inference(replace(settings, max_whole_px=896)).score_map(photo((170, 120)))
    torch.testing.assert_close(windows, whole)


def test_score_map_gives_the_labels(segmenter: Segmenter, photo):
    model = segmenter.with_words(["red", "green", "blue"], "threshold:0.7")
    labels, scores = model.labels_of(model.score_map(photo()), (57, 83))
    result = model(photo())
    assert np.array_equal(result.labels, labels)
    assert np.array_equal(result.scores, scores)


def test_class_scores_as_its_best_synonym(segmenter: Segmenter):
    image = two_halves(left=(230, 25, 13), right="blue")
    plain = segmenter.with_words(["red", "blue"]).score_map(image)
    with_synonym = segmenter.with_words(["red/scarlet", "blue"])
    assert (with_synonym.score_map(image)[0] >= plain[0]).all()
    assert with_synonym.score_map(image)[0, 0, 0] == pytest.approx(1, abs=1e-3)
    result = with_synonym(image)
    assert result.words == ("red", "blue")
    assert np.array_equal(result.mask("scarlet"), result.mask("red"))


def test_background_threshold_takes_what_scores_below(segmenter: Segmenter):
    result = segmenter.with_words(["red"], "threshold:0.5")(two_halves(right="lime"))
    assert result.mask("background")[:, 330:].all()
    assert result.mask("red")[:, :310].all()
    assert result.record["background"] == {"rule": "threshold:0.5", "id": 1}


def test_background_words_compete(segmenter: Segmenter):
    result = segmenter.with_words(["red/scarlet"], "words:green,blue/yellow")(
        two_halves(right="blue")
    )
    assert result.mask("background")[:, 330:].all()
    assert result.words == ("red",)
    assert result.record["background"] == {"rule": "words:green,blue/yellow", "id": 1}
    assert result.areas()["background"] == pytest.approx(0.5, abs=0.01)


def test_background_id_beyond_a_byte(segmenter: Segmenter):
    model = segmenter.with_words(["red"], "threshold:0.5")
    vocabulary = replace(model.vocabulary, classes=tuple((f"w{i}",) for i in range(256)))
    many = replace(model, vocabulary=vocabulary, embeddings=model.embeddings.expand(256, -1))
    labels = many(two_halves(right="lime")).labels
    assert labels.max() == 256


def test_rule_is_kept_unless_another_is_given(segmenter: Segmenter):
    model = segmenter.with_words(["red"], "threshold:0.5").with_words(["green"])
    assert str(model.background) == "threshold:0.5"
    assert str(model.with_words(["green"], "none").background) == "none"
    assert str(model.with_words(["green"], Background()).background) == "none"


@pytest.mark.parametrize(
    "rule", ["", "sky", "threshold", "threshold:x", "threshold:1.5", "threshold:nan", "none:1"]
)
def test_malformed_rules(rule: str):
    with pytest.raises(ValueError, match=r"is unknown|not a cosine"):
        Background.parse(rule)


@pytest.mark.parametrize(
    ("words", "rule", "message"),
    [
        ([], "none", "no words"),
        (["red", ""], "none", "empty"),
        (["red", "red"], "none", "repeated"),
        (["red"], "words:green,red", "repeated"),
        (["red"], "words:", "empty"),
        (["red\nblue"], "none", "newline"),
        (["background"], "threshold:0", "taken by the background rule"),
    ],
)
def test_bad_words(segmenter: Segmenter, words: list[str], rule: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        segmenter.with_words(words, rule)
    assert "\n" not in str(caught.value)


def test_without_words(segmenter: Segmenter):
    with pytest.raises(ValueError, match="no words were chosen"):
        segmenter(two_halves())


@pytest.mark.parametrize(
    "setting", [{"side_px": 0}, {"batch_size": 0}, {"window_px": 99999}, {"stride_px": 500}]
)
def test_bad_settings(setting: dict[str, int]):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Inference(**setting)


def test_embeddings_are_computed_once_per_word_list(segmenter: Segmenter):
    model = segmenter.with_words(["red", "green"], templates=["a {}", "the {}"])
    assert segmenter.embeddings is None, "the old one is as it was"
    model([two_halves(), two_halves()])
    assert segmenter.method.num_texts == 4
    torch.testing.assert_close(model.embeddings.norm(dim=1), torch.ones(2))


def test_templates_by_name_and_by_hand(segmenter: Segmenter):
    assert segmenter.with_words(["red"], templates="plain").templates == ("{}",)
    assert segmenter.with_words(["red"], templates="a {}").templates == ("a {}",)
    with pytest.raises(ValueError, match="'fancy' is unknown: plain"):
        segmenter.with_words(["red"], templates="fancy")


def test_equal_sizes_go_together_and_order_is_kept(segmenter: Segmenter):
    sizes = [(640, 480), (480, 640), (640, 480), (320, 240), (480, 640)]
    photos = [two_halves(*size, left="red" if i % 2 else "blue") for i, size in enumerate(sizes)]
    results = segmenter.with_words(["red", "blue", "green"])(photos)
    assert [result.labels.shape[::-1] for result in results] == sizes
    assert [int(result.labels[0, 0]) for result in results] == [1, 0, 1, 0, 1]
    assert sorted(shape[0] for shape in segmenter.method.seen) == [2, 3]


def test_batches_change_nothing(segmenter: Segmenter, photo):
    photos = [photo((83, 57)), photo((57, 83)), photo((83, 57))]
    model = segmenter.with_words(["red", "green", "blue"])
    for together, alone in zip(model(photos), map(model, photos), strict=True):
        assert np.array_equal(together.labels, alone.labels)


def test_stream_is_read_only_a_little_ahead(segmenter: Segmenter):
    num_read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal num_read
        while True:
            num_read += 1
            yield two_halves(64, 48)

    settings = Inference(side_px=32, batch_size=2)
    results = (
        segmenter.with_words(["red", "green"]).with_inference(settings).segment_many(endless())
    )
    for _ in range(20):
        next(results)
    assert 20 <= num_read <= 28


def test_large_photos_wait_until_others_are_freed(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    pixels = 64 * 48
    monkeypatch.setattr(reading, "_CHUNK_PIXELS", pixels)
    monkeypatch.setattr(reading, "_HELD_PIXELS", 2 * pixels)
    num_read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal num_read
        while True:
            num_read += 1
            yield two_halves(64, 48)

    model = segmenter.with_words(["red", "green"]).with_inference(Inference(side_px=32))
    results = model.segment_many(endless())
    for place in range(10):
        next(results)
        time.sleep(0.02)
        # The one that the caller has, and one beside it.
        assert num_read <= place + 2


def test_bad_photos_are_reported_in_their_place(segmenter: Segmenter, tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no photo")
    photos = [two_halves(), tmp_path / "text.jpg", tmp_path / "none.jpg", tmp_path, two_halves()]
    results = list(segmenter.with_words(["red", "green"]).segment_many(photos))
    assert [isinstance(result, PhotoError) for result in results] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert results[1].photo == str(tmp_path / "text.jpg")
    with pytest.raises(FileNotFoundError):
        segmenter.with_words(["red"])([two_halves(), tmp_path / "none.jpg"])


def test_scores_that_are_not_numbers(segmenter: Segmenter):
    model = segmenter.with_words(["red"])
    broken = replace(model, embeddings=model.embeddings * float("nan"))
    with pytest.raises(ValueError, match="not numbers"):
        broken(two_halves())


def test_record_says_how(segmenter: Segmenter):
    record = segmenter.with_words(["red/scarlet", "green"], templates="plain")(two_halves()).record
    assert json.loads(json.dumps(record)) == record
    assert record["words"] == [["red", "scarlet"], ["green"]]
    assert record["templates"] == ["{}"]
    assert record["background"] is None
    assert record["model"] == {"name": "colors", "weights_sha256": "abc"}
    assert record["resized"] == {"height": 448, "width": 597}
    assert record["inference"]["window_px"] == 448
    assert record["photo"] == {"name": "photo", "width": 640, "height": 480}
    assert record["versions"]["torch"] == version("torch")


def test_bfloat16_is_close(segmenter: Segmenter, photo):
    model = segmenter.with_words(["red", "green", "blue"])
    low = model.with_inference(replace(model.inference, precision="bfloat16"))
    torch.testing.assert_close(low.score_map(photo()), model.score_map(photo()), atol=0.02, rtol=0)


def test_own_files_and_real_method(tiny_vilseg, tiny_tokenizer, tmp_path: Path, photo):
    photo((83, 57)).save(tmp_path / "meadow.png")
    model = Segmenter(method=tiny_vilseg, tokenizer=tiny_tokenizer).with_words(
        ["dog", "grass", "red sofa"]
    )
    result = model(tmp_path / "meadow.png")
    assert result.labels.shape == (57, 83)
    assert np.abs(result.scores).max() <= 1
    assert [path.name for path in result.save(tmp_path / "out")] == [
        "meadow.png",
        "meadow.overlay.png",
        "meadow.json",
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_forty_megapixels_and_twenty_words_take_less_than_four_gigabytes(
    tiny_vilseg, tiny_tokenizer, tmp_path: Path
):
    image = Image.effect_noise((8000, 5000), 60).convert("RGB")
    image.save(tmp_path / "large.jpg")
    things = ("dog", "cat", "car", "sofa", "sea")
    words = [f"{color} {thing}" for color in ("red", "blue", "green", "black") for thing in things]
    model = Segmenter(method=tiny_vilseg, tokenizer=tiny_tokenizer).with_words(words)
    model(tmp_path / "large.jpg").save(tmp_path / "out")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20  # KiB


STEADY = {"smooth": 3, "class_prior": 2.0}


def test_neighbors_and_the_whole_photo_speak_for_each_patch(segmenter: Segmenter):
    """After the best of synonyms was taken: a class is one thing, by whatever name."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8))
    asked = segmenter.with_inference(Inference(side_px=96)).with_words(
        ["red/scarlet", "blue", "green/yellow"]
    )
    plain = asked.score_map(image)[None]
    steady = asked.with_inference(Inference(side_px=96, **STEADY)).score_map(image)
    even = smooth(plain, 3)
    assert_close(steady, (even + 2 * apply_class_prior(even))[0])

    leveled = Inference(side_px=96, smooth=3, class_level=0.35)
    expected = even - 0.35 * class_levels(even)
    assert_close(asked.with_inference(leveled).score_map(image), expected[0])

    # A threshold is a bound on the scores as they are.
    bounded = asked.with_words(["red/scarlet", "blue", "green/yellow"], "threshold:0.1")
    assert_close(bounded.with_inference(leveled).score_map(image), even[0])


@pytest.mark.parametrize(
    "change",
    [
        {"smooth": 2},
        {"smooth": -1},
        {"class_prior": -1.0},
        {"logit_scale": -1.0},
        {"refine": "pamr", "score": "softmax"},
    ],
)
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Inference(**change)


def test_softmax_gives_the_same_labels_and_the_winners_probability(segmenter: Segmenter):
    """Arg-max over synonyms and classes does not care for the softmax.

    The threshold is a probability.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8))
    words = ["red/scarlet", "blue", "green"]
    softmax = segmenter.with_inference(
        Inference(side_px=48, score="softmax", logit_scale=7.0)
    ).with_words(words)
    found = softmax(image)
    phrases = softmax.score_map(image)
    assert phrases.shape[0] == 4
    exact = F.interpolate(phrases[None], (96, 160), mode="bilinear", align_corners=False)[0]
    probability, best = (7 * exact).softmax(0).max(0)
    assert_close(torch.from_numpy(found.scores).float(), probability, atol=1e-3, rtol=0)
    assert np.array_equal(found.labels, np.array([0, 0, 1, 2])[best.numpy()])
    refused = softmax.with_words(words, "threshold:0.3")(image)
    assert np.array_equal(refused.labels == 3, found.scores < 0.3)


def test_product_scores_have_the_background_as_a_channel(segmenter: Segmenter):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = (255, 0, 0)
    image[:, 48:] = (90, 80, 85)  # like nothing
    product = segmenter.with_inference(Inference(side_px=64, score="product")).with_words(
        ["red", "blue", "green"], "threshold:0.9"
    )
    assert product.score_map(image).shape == (4, 64, 96)
    result = product(image)
    assert (result.labels[:, :40] == 0).all()
    assert (result.labels[:, 56:] == 3).all()
    assert result.names[3] == "background"


def test_refinement_follows_the_edge_of_the_photo(segmenter: Segmenter):
    """The edge lies within a patch: bilinear scores miss it, PAMR finds it.

    A threshold still means background.
    """
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :42] = (255, 0, 0)
    image[:, 42:] = (0, 0, 255)
    plain = segmenter.with_inference(Inference(side_px=64)).with_words(["red", "blue"])
    refined = plain.with_inference(Inference(side_px=64, refine="pamr"))
    truth = np.repeat((np.arange(96) >= 42)[None], 64, axis=0)
    assert (refined(image).labels != truth).mean() < (plain(image).labels != truth).mean()
    refused = refined.with_words(["green"], "threshold:0.5")
    assert (refused(image).labels == 1).all()


def test_what_is_no_photo_is_refused_in_one_line(tiny_checkpoint):
    segmenter = loading.load(tiny_checkpoint).with_words(["dog", "grass"])
    with pytest.raises(
        ValueError, match=r"a generator is no photo: .* for many photos use a list, or segment_many"
    ):
        segmenter(path for path in ["a.jpg"])
    [problem] = segmenter.segment_many([7])
    assert isinstance(problem, PhotoError) and "a int is no photo" in problem.reason


def test_tensors_and_bytes_are_labeled_as_the_photo_is(tiny_checkpoint, photo):
    segmenter = loading.load(tiny_checkpoint).with_words(["dog", "grass"])
    picture = photo((83, 57))
    file = io.BytesIO()
    picture.save(file, "PNG")
    pixels = torch.from_numpy(np.array(picture))
    expected = segmenter(picture)
    for source in (
        pixels,
        pixels.movedim(-1, 0),
        pixels.movedim(-1, 0).float() / 255,
        file.getvalue(),
    ):
        assert np.array_equal(segmenter(source).labels, expected.labels)
    assert len(segmenter([pixels, file.getvalue()])) == 2
