"""Words as training text: what batches carry, where gradients go, what is saved, and that it
learns.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from data.shard_files import jpeg, write_tar
from maskfree.data.config import DataConfig
from maskfree.data.sample import Source
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.engine.train import fit
from maskfree.hub import checkpoint
from maskfree.methods.vilseg import transform
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ViLSegConfig, VisionConfig
from maskfree.methods.vilseg.words import as_convolution, embed_tags, start_from_tags
from maskfree.methods.vilseg.words_config import WordsConfig
from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.convolutions import initialize_convolutions
from maskfree.nn.pretrained import read_classifier
from maskfree.nn.projection import NearIdentity
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.tags import Tag
from tiny import TINY_IMAGE, TINY_TEXT, tiny_vilseg_config

TAGS = "poodle, toy dog\tdog\nhouse cat\tcat/animal\nlawn\nliner, ship\tboat\nball\ttoy\n"
KINDS = ("animal", "boat", "cat", "dog", "toy")
NUM_TAGS, SIDES = 5, (48, 80)  # 3 x 5 patches
CAPTIONED = (
    ["a dog on the grass", "a dog"],
    ["a man and a ball", "a man sits"],
    ["a very large one"],
    ["a cat"],
)
CONTENT = {"dog", "grass", "man", "ball", "cat", "sea", "sky"}


@pytest.fixture(autouse=True)
def _plain_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few words are nouns, so that nothing here needs the extra `entities`."""
    monkeypatch.setattr(
        transform, "nouns", lambda text: tuple(w for w in text.split() if w in CONTENT)
    )


def save_classifier(folder: Path, num_classes: int) -> Path:
    """A MobileNetV2 with a last layer, as published ones come."""
    configuration = transformers.MobileNetV2Config(
        **TINY_IMAGE.architecture, num_labels=num_classes
    )
    model = transformers.MobileNetV2ForImageClassification(configuration)
    initialize_convolutions(model)
    nn.init.normal_(model.classifier.weight)
    nn.init.normal_(model.classifier.bias)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def config(tmp_path: Path, tiny_tokenizer) -> ViLSegConfig:
    """Tiny towers with a classifier of its own "background" and five classes.

    Nothing but words is learned.
    """
    weights = save_classifier(tmp_path / "classifier", NUM_TAGS + 1)
    (tmp_path / "tags.txt").write_text(TAGS)
    tiny_tokenizer.save(weights / "tokenizer.json")
    return tiny_vilseg_config(
        image=replace(TINY_IMAGE, architecture={}, weights=str(weights)),
        text=replace(TINY_TEXT, frozen=True),
        tokenizer=str(weights),
        embed_dim=24,
        image_projection=ProjectionConfig("classifier_mixture", num_classes=NUM_TAGS),
        text_projection=ProjectionConfig("near"),
        vision=None,
        cluster=None,
        words=WordsConfig(str(tmp_path / "tags.txt")),
        grouping="pixels",
    )


def collated(
    config: ViLSegConfig, tokenizer, photo, captions=CAPTIONED, seed: int = 0, **changes
) -> ViLSegBatch:
    transform = replace(config.build_transform(tokenizer), **changes)
    samples = [
        transform.sample(Source(str(i), photo((90, 61)), texts), seed + i)
        for i, texts in enumerate(captions)
    ]
    return transform.collate(samples).to(torch.device("cpu"))


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


# What a batch carries


def test_words_of_a_batch_are_the_kinds_and_then_its_nouns(config, tiny_tokenizer, photo):
    batch = collated(config, tiny_tokenizer, photo, prompted=0.0)
    expected = tiny_tokenizer([*KINDS, "ball", "grass", "man"])
    assert torch.equal(batch.words.ids, expected.ids) and torch.equal(
        batch.words.mask, expected.mask
    )
    third = 1 / 3
    weights = torch.tensor(
        [
            [0, 0, 0, 2 * third, 0, 0, third, 0],  # in both captions, in one
            [0, 0, 0, 0, 0, third, 0, 2 * third],
            [0, 0, 0, 0, 0, 0, 0, 0],  # names nothing
            [0, 0, 1, 0, 0, 0, 0, 0],  # a noun that is a kind
        ]
    )
    assert_close(batch.word_weights, weights)


def test_prompted_batches_are_prompted(config, tiny_tokenizer, photo):
    batch = collated(config, tiny_tokenizer, photo, prompted=1.0)
    words = [*KINDS, "ball", "grass", "man"]
    assert torch.equal(
        batch.words.ids, tiny_tokenizer([f"a photo of a {word}" for word in words]).ids
    )


def test_as_many_batches_are_prompted_as_should_be(config, tiny_tokenizer, photo):
    transform = config.build_transform(tiny_tokenizer)
    drawn = [
        transform.sample(Source("a", photo((16, 16)), ["a dog"]), seed).prompted
        for seed in range(200)
    ]
    assert 0.4 < sum(drawn) / len(drawn) < 0.6


def test_photos_without_captions_still_have_the_tags(config, tiny_tokenizer, photo):
    batch = collated(config, tiny_tokenizer, photo, captions=([], [], []))
    assert batch.captions is None
    assert len(batch.words.ids) == len(KINDS) and torch.equal(
        batch.word_weights, torch.zeros(3, len(KINDS))
    )
    losses = config.build()(batch)
    assert set(losses.terms) == {"nouns", "kinds", "tags"}
    assert losses.terms["nouns"] == 0
    assert losses.terms["tags"] > 0 and losses.terms["kinds"] > 0


def test_no_words_without_a_tokenizer_or_without_the_term(config, tiny_tokenizer, photo):
    bare = collated(config, None, photo, captions=([], []))
    off = collated(replace(config, words=None), tiny_tokenizer, photo)
    assert bare.words is bare.word_weights is off.words is off.word_weights is None
    assert set(config.build()(off).terms) == {"cross"}


# How it starts


def test_classifier_is_read_without_its_background(config, tmp_path):
    stored = transformers.MobileNetV2ForImageClassification.from_pretrained(
        config.image.weights
    ).classifier
    read = read_classifier(config.image.weights, NUM_TAGS)
    assert torch.equal(read.weight, stored.weight[1:]) and torch.equal(read.bias, stored.bias[1:])
    whole = read_classifier(config.image.weights, NUM_TAGS + 1)
    assert torch.equal(whole.weight, stored.weight) and torch.equal(whole.bias, stored.bias)
    for number in (NUM_TAGS - 1, NUM_TAGS + 2):
        with pytest.raises(ValueError, match=f"no classifier of {number} classes"):
            read_classifier(config.image.weights, number)


def test_tags_are_embedded_as_the_mean_of_their_names_and_with_their_kinds(config, tiny_tokenizer):
    tags, text = config.words.read(), config.text.build()

    def embed(*phrases: str) -> torch.Tensor:
        return F.normalize(text(tiny_tokenizer(phrases)), dim=-1).mean(0)

    names, both = embed_tags(tags, text, tiny_tokenizer)
    assert names.shape == both.shape == (NUM_TAGS, 24)
    first, second = F.normalize(embed("poodle", "toy dog"), dim=0), embed("house cat")
    assert_close(names[:3], torch.stack([first, second, embed("lawn")]), atol=1e-5, rtol=1e-4)
    expected = [
        F.normalize(first + embed("dog"), dim=0),
        F.normalize(second + embed("cat", "animal"), dim=0),
    ]
    assert_close(both[:3], torch.stack([*expected, embed("lawn")]), atol=1e-5, rtol=1e-4)


def test_any_number_of_tags_is_embedded(config, tiny_tokenizer):
    phrases = [f"{first} {second}" for first in "abdefgh" for second in "abdefghimn"]
    text = config.text.build()
    names, both = embed_tags([Tag((phrase,), ()) for phrase in phrases], text, tiny_tokenizer)
    assert_close(names, F.normalize(text(tiny_tokenizer(phrases)), dim=-1), atol=1e-5, rtol=1e-4)
    assert_close(both, names)


@torch.no_grad()
def test_pixel_that_is_surely_a_tag_starts_with_the_tags_text():
    image, text = ClassifierMixture(channels=6, num_classes=NUM_TAGS, dim=8), NearIdentity(8)
    classifier, features = nn.Linear(6, NUM_TAGS), F.normalize(torch.randn(NUM_TAGS, 8), dim=1)
    classifier.weight.copy_(200 * torch.eye(NUM_TAGS, 6))
    classifier.bias.zero_()
    start_from_tags(image, text, classifier, features)
    image.linear.weight.zero_()
    pixels = torch.eye(NUM_TAGS, 6)[:, :, None, None]
    assert_close(image(pixels)[..., 0, 0], text(features))


def test_classifier_as_a_convolution_says_the_same():
    classifier, features = nn.Linear(6, NUM_TAGS), torch.randn(2, 6, 3, 4)
    assert_close(
        as_convolution(classifier)(features).movedim(1, -1), classifier(features.movedim(1, -1))
    )


def test_built_method_starts_from_the_classifier(config):
    method = config.build()
    classifier = read_classifier(config.image.weights, NUM_TAGS)
    for convolution in (method.image.projection.classifier, method.words.tagger.classifier):
        assert torch.equal(convolution.weight[:, :, 0, 0], classifier.weight)
        assert torch.equal(convolution.bias, classifier.bias)
    assert_close(method.words.kinds.sum(1), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))
    assert method.words.kinds[1].tolist() == [0.5, 0, 0.5, 0, 0]
    images = torch.rand(2, 3, *SIDES)
    tags = method.words.tagger(images)
    assert_close(tags.sum(1), torch.ones(2, 3, 5))
    assert_close(
        tags, classifier(method.image.encoder(images).movedim(1, -1)).softmax(-1).movedim(-1, 1)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: {
                "image": replace(c.image, architecture=TINY_IMAGE.architecture, weights=None)
            },
            "image weights",
        ),
        (lambda c: {"text": replace(c.text, frozen=False)}, "a frozen text encoder"),
        (
            lambda c: {"image_projection": ProjectionConfig("linear")},
            "image projection of kind 'classifier_mixture'",
        ),
        (
            lambda c: {"text_projection": ProjectionConfig("linear")},
            "text projection of kind 'near'",
        ),
        (
            lambda c: {"image_projection": ProjectionConfig("classifier_mixture", num_classes=9)},
            "num_classes is 9: there are 5 tags",
        ),
        (lambda c: {"words": replace(c.words, tags="nowhere.txt")}, r"no tags file nowhere\.txt"),
        (lambda c: {"tokenizer": None}, "no tokenizer"),
    ],
)
def test_what_words_need_is_said(config, change, message: str):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        replace(config, **change(config)).build()
    assert "\n" not in str(caught.value)


def test_number_of_tags_must_be_that_of_the_classes(config):
    path = Path(config.words.tags)
    path.write_text(TAGS + "stove\nspoon\n")
    more = replace(config, image_projection=ProjectionConfig("classifier_mixture", num_classes=7))
    with pytest.raises(ValueError, match="no classifier of 7 classes"):
        more.build()


# What it costs and teaches


def test_gradient_reaches_the_projections_and_not_the_tagger(config, tiny_tokenizer, photo):
    method, batch = config.build(), collated(config, tiny_tokenizer, photo)
    losses = method(batch)
    assert set(losses.terms) == {"cross", "nouns", "kinds", "tags"} and losses.total.isfinite()
    assert_close(losses.metrics["word_scale"], torch.tensor(20.0))
    for name in ("nouns", "kinds", "tags"):
        method.zero_grad()
        method(batch).terms[name].backward()
        for module in (method.image.projection, method.text.projection, method.image.encoder):
            assert gradients(module) > 0, name
        assert method.words.log_scale.grad != 0
    assert gradients(method.text.encoder) == 0 == gradients(method.words.tagger)
    assert not any(p.requires_grad for p in method.words.tagger.parameters())


def test_terms_are_what_they_say(config, tiny_tokenizer, photo):
    """On photos of one patch, where no pixel is left to chance, and with each part by hand."""
    method, batch = config.build(), collated(config, tiny_tokenizer, photo)
    batch = replace(batch, images=torch.rand(4, 3, 16, 16))
    with torch.no_grad():
        method.text.projection.linear.weight += 0.2 * torch.randn(24, 24)
        pixels = F.normalize(method.image(batch.images)[..., 0, 0], dim=-1)
        tags = method.words.tagger(batch.images)[..., 0, 0]
        kinds = torch.zeros(4, len(KINDS))
        for column, shares in enumerate(({3: 1.0}, {0: 0.5, 2: 0.5}, {}, {1: 1.0}, {4: 1.0})):
            for kind, share in shares.items():
                kinds[:, kind] += share * tags[:, column]
        names, _ = embed_tags(config.words.read(), method.text.encoder, tiny_tokenizer)
        embeddings = torch.cat(
            [F.normalize(method.text.projection(names), dim=-1), method.text(batch.words)]
        )
        common = torch.cat([tags.mean(0), batch.word_weights.mean(0)])
        common[NUM_TAGS:][: len(KINDS)] += kinds.mean(0)
        common = (common / common.mean()).clamp_min(1e-5)
        logs = (20 * pixels @ embeddings.T + 0.5 * common.log()).log_softmax(-1)
        terms = method(batch).terms
    assert_close(terms["tags"], -0.25 * (tags * logs[:, :NUM_TAGS]).sum(1).mean())
    assert_close(
        terms["kinds"], -0.25 * (kinds * logs[:, NUM_TAGS:][:, : len(KINDS)]).sum(1).mean()
    )
    assert_close(terms["nouns"], -0.5 * (batch.word_weights * logs[:, NUM_TAGS:]).sum(1).mean())


def test_tagger_stays_as_it_is_when_the_encoder_learns(config):
    method, images = config.build(), torch.rand(2, 3, *SIDES)
    before = method.words.tagger(images)
    with torch.no_grad():
        for parameter in (*method.image.parameters(), *method.text.projection.parameters()):
            parameter += 0.1
    assert torch.equal(method.words.tagger(images), before)


def test_weights_scale_their_terms(config, tiny_tokenizer, photo):
    batch = collated(config, tiny_tokenizer, photo)
    even = replace(config.words, nouns_weight=1.0, kinds_weight=1.0, tags_weight=1.0)
    uneven = replace(config.words, nouns_weight=2.0, kinds_weight=3.0, tags_weight=5.0)
    terms = []
    for words in (even, uneven):
        torch.manual_seed(0)
        method = replace(config, words=words).build()
        torch.manual_seed(1)
        terms.append(method(batch).terms)
    for name, factor in {"nouns": 2, "kinds": 3, "tags": 5}.items():
        assert_close(terms[1][name], factor * terms[0][name])


# What is saved


def test_what_predicts_has_no_tagger(config, tmp_path, tiny_tokenizer):
    method, lean = config.build(), config.for_inference()
    assert lean.words is None and lean.image.weights is None and lean.tokenizer is None
    rebuilt, trained = lean.build(), method.state_dict()
    kept = rebuilt.state_dict()
    assert kept.keys() < trained.keys()
    assert {name for name in trained.keys() - kept.keys() if not name.startswith("words.")} == set()
    rebuilt.load_state_dict({name: trained[name] for name in kept})
    checkpoint.save(
        tmp_path / "model", rebuilt, lean, tiny_tokenizer, {"name": "tiny", "templates": ["{}"]}
    )
    loaded, *_ = checkpoint.load(tmp_path / "model", {"ViLSegConfig": ViLSegConfig})
    images, classes = torch.rand(1, 3, *SIDES), F.normalize(torch.randn(7, 24), dim=1)
    assert_close(loaded.segment(images, classes), method.eval().segment(images, classes))


def test_a_run_with_words_takes_its_steps_and_exports(config, tmp_path):
    """With all terms, an average, and the image encoder frozen at first, as the bundled model's
    run.
    """
    texts = [json.dumps({"captions": list(captions)}).encode() for captions in CAPTIONED]
    entries = [
        e
        for i, text in enumerate(texts)
        for e in ((f"{i}.jpg", jpeg(i, (90, 61))), (f"{i}.json", text))
    ]
    write_tar(tmp_path / "train.tar", entries)
    whole = tiny_vilseg_config()
    recipe = Recipe(
        name="words",
        method=replace(
            config,
            vision=VisionConfig(out_dim=14, num_local_views=2, local_side_px=32),
            cluster=whole.cluster,
            text=replace(
                config.text, architecture=config.text.architecture | {"max_position_embeddings": 80}
            ),
        ),
        data=DataConfig(shards=(str(tmp_path / "train.tar"),), workers=0),
        train=TrainConfig(
            steps=2,
            batch_size=4,
            warm_up_steps=1,
            lr_multipliers=(("image.encoder", 0.1),),
            frozen=("image.encoder",),
            frozen_steps=1,
            average_decay=0.5,
            accelerator="cpu",
            storage="int8",
        ),
    )
    assert fit(recipe, tmp_path / "run") == 2
    rows = [
        json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert {"cross", "vision", "cluster", "nouns", "kinds", "tags", "total"} <= set(
        rows[-1]["loss"]
    )
    run = json.loads((tmp_path / "run" / "model" / "run.json").read_text())
    assert run["config"]["words"] is None and run["config"]["vision"] is None
    checkpoint.load(tmp_path / "run" / "model", {"ViLSegConfig": ViLSegConfig})


class Colors(nn.Module):
    """Each patch's mean color, as six channels."""

    patch_size = 16

    def forward(self, images):
        color = F.avg_pool2d(images, self.patch_size)
        return torch.cat([color, 1 - color], dim=1)


def test_learns_which_half_is_which_noun(config, tiny_tokenizer, photo):
    """Photos of two colors, whose captions name both.

    No photo says which is which, the others do.
    """
    colors = {
        "dog": (1.0, 0.0, 0.0),
        "grass": (0.0, 1.0, 0.0),
        "sea": (0.0, 0.0, 1.0),
        "sky": (1.0, 1.0, 0.0),
    }
    names, values = list(colors), torch.tensor(list(colors.values()))
    pairs = [(first, second) for first in range(4) for second in range(4) if first < second]
    alone = replace(config.words, kinds_weight=0.0, tags_weight=0.0)
    config = replace(config, words=alone)
    method = config.build()
    method.image.encoder = method.words.tagger.encoder = Colors()
    method.image.projection = ClassifierMixture(channels=6, num_classes=NUM_TAGS, dim=24)
    method.words.tagger.classifier = nn.Conv2d(6, NUM_TAGS, 1)
    captions = [[f"{names[first]} {names[second]}"] for first, second in pairs]
    batch = collated(config, tiny_tokenizer, photo, captions, prompted=0.0)
    images = torch.stack([values[list(pair)].T[:, [0, 0, 1, 1, 1]] for pair in pairs])  # b 3 wp
    images = (
        images[:, :, None].expand(-1, -1, 3, -1).repeat_interleave(16, 2).repeat_interleave(16, 3)
    )
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        noisy = (images + 0.1 * torch.randn_like(images)).clamp(0, 1)
        method(replace(batch, images=noisy, captions=None)).total.backward()
        optimizer.step()
    with torch.no_grad():
        labels = method.eval().segment(images, method.encode_text(tiny_tokenizer(names))).argmax(1)
    for photo_labels, (first, second) in zip(labels, pairs, strict=True):
        assert (photo_labels[:, :2] == first).all() and (photo_labels[:, 2:] == second).all()
