"""What OVSegmentor sees: masked captions with their answers, and partners.

Each part drawn by itself.
"""

import itertools
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tokenizers
import torch
from torch.testing import assert_close

from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.loader import Stream, build_loader
from maskfree.data.order import Share
from maskfree.data.packed import PackedViews
from maskfree.data.sample import Partner, Source, Transform
from maskfree.methods.ovsegmentor.batch import OVSegmentorBatch
from maskfree.methods.ovsegmentor.transform import OVSegmentorTransform
from maskfree.text.entities import EntitySet
from maskfree.text.tokenize import Tokenizer
from maskfree.types import TensorRecord

JERSEY = "A T-shirt hangs beside two buses; sheep and a Glass bus look on"
TEMPLATES = ("a photo of {} in space.", "itap of {}.", "{} everywhere")


@dataclass(frozen=True)
class KeyedBatch(TensorRecord):
    batch: OVSegmentorBatch
    key: str


@dataclass(frozen=True)
class Keyed(Transform):
    """Batches of one photo with its key."""

    transform: OVSegmentorTransform

    @property
    def takes_partner(self):
        return self.transform.takes_partner

    def sample(self, source, seed):
        return source.key, self.transform.sample(source, seed)

    def collate(self, samples):
        ((key, sample),) = samples
        return KeyedBatch(self.transform.collate([sample]).to(torch.device("cpu")), key)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A word-piece tokenizer that knows the shapes' words, and spells others out."""
    folder = tmp_path_factory.mktemp("shapes") / "data"
    shapes.write(folder, 8)
    return Tokenizer.from_source(str(folder), max_length=48)


@pytest.fixture(scope="module")
def transform(tokenizer):
    return OVSegmentorTransform(
        tokenizer=tokenizer,
        entity_set=EntitySet.read("ovsegmentor"),
        side_px=32,
        scale=(0.08, 1.0),
        mirror=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        masking="entities",
        templates=TEMPLATES,
    )


@pytest.fixture
def source(photo):
    return Source("k", photo((90, 61)), ["a dog", JERSEY, "blue"], Partner("dog", photo((40, 70))))


def text_of(transform, caption, photo, seed=0):
    return transform.sample(Source("k", photo((20, 20)), [caption]), seed).texts


def names(transform, numbers):
    return [transform.entity_set.entities[n] if n >= 0 else None for n in numbers]


def same(first, second):
    return torch.equal(first.view.image, second.view.image) and first.caption == second.caption


@pytest.mark.parametrize(
    ("caption", "question", "entities"),
    [
        (
            JERSEY,
            "A [MASK] hangs beside two [MASK]; [MASK] and a [MASK] [MASK] look on",
            "shirt bus sheep glass bus",
        ),
        (
            "Men, women and children's bikes",
            "[MASK], [MASK] and [MASK]'s [MASK]",
            "people people people bicycle",
        ),
        ("The man's sofa.", "The [MASK]'s [MASK].", "people sofa"),
    ],
)
def test_every_entity_is_masked_and_numbered(transform, photo, caption, question, entities):
    texts = text_of(transform, caption, photo)
    assert texts.question == question and texts.masked
    assert [
        name.casefold() for name in names(transform, texts.hidden)
    ] == entities.casefold().split()
    distinct = list(dict.fromkeys(names(transform, texts.hidden)))
    assert any(
        texts.answer == template.replace("{}", " and ".join(distinct)) for template in TEMPLATES
    )


def test_templates_vary_and_lose_nothing(transform, photo):
    answers = {text_of(transform, "a dog", photo, seed).answer for seed in range(30)}
    assert answers == {"a photo of dog in space.", "itap of dog.", "dog everywhere"}


def test_one_mention_at_random(transform, photo):
    drawn = {
        text_of(replace(transform, masking="one"), "a dog and a cat", photo, seed)[:2]
        for seed in range(60)
    }
    assert {question for question, _ in drawn} == {"a [MASK] and a cat", "a dog and a [MASK]"}
    assert all(
        ("dog" in answer) == (question == "a [MASK] and a cat") for question, answer in drawn
    )


def test_nouns_outside_the_set_are_masked_without_a_number(transform, photo):
    texts = text_of(replace(transform, masking="nouns"), "the men hold a red trumpet", photo)
    assert texts.question == "the [MASK] hold a red [MASK]"
    assert names(transform, texts.hidden) == ["people", None]
    assert "man" in texts.answer and "trumpet" in texts.answer


def test_a_caption_that_names_nothing_is_its_own_question_and_answer(transform, photo):
    for masking in ("entities", "one", "nouns"):
        texts = text_of(replace(transform, masking=masking), "very blue", photo)
        assert texts[:4] == ("very blue", "very blue", False, ())


def test_targets_stand_on_the_mask_tokens(transform, tokenizer, photo):
    captions = [JERSEY, "very blue", "[MASK] a dog", "a dog " + "red " * 60 + "cat"]
    samples = [
        transform.sample(Source(str(i), photo((20, 20)), [c]), i) for i, c in enumerate(captions)
    ]
    entities = transform.collate(samples).to(torch.device("cpu")).entities
    assert entities.masked.tolist() == [True, False, True, True]
    assert (entities.questions.ids == tokenizer.mask_id)[entities.targets >= 0].all()
    found = [names(transform, row[row >= 0].tolist()) for row in entities.targets]
    assert found == [
        ["shirt", "bus", "sheep", "glass", "bus"],
        [],
        ["dog"],
        ["dog"],
    ]  # the cat is cut off
    assert (entities.questions.ids == tokenizer.mask_id).sum(1).tolist() == [5, 0, 2, 1]
    assert entities.labels is None and entities.labeled is None
    assert entities.answers.ids.shape[0] == 4


def test_labels_are_distinct_entities_in_prompts(transform, tokenizer, photo):
    several = replace(transform, label_count=2)
    captions = ["a man, a woman, a dog and a cat", "a dog and dogs", "very blue"]
    samples = [
        several.sample(Source(str(i), photo((20, 20)), [c]), i) for i, c in enumerate(captions)
    ]
    assert [len(sample.texts.labels) for sample in samples] == [2, 1, 0]
    entities = several.collate(samples).to(torch.device("cpu")).entities
    assert entities.labels.ids.shape[0] == 6
    assert entities.labeled.tolist() == [[True, True], [True, False], [False, False]]
    drawn = {text_of(several, captions[0], photo, seed).labels for seed in range(300)}
    prompted = {
        t.replace("{}", name): (name, t) for name in ("people", "dog", "cat") for t in TEMPLATES
    }
    pairs = {tuple(prompted[label] for label in labels) for labels in drawn}
    assert (
        len({(first, second) for (first, _), (second, _) in pairs}) == 6
    )  # two different ones, in any order
    assert (
        len({(first, second) for (_, first), (_, second) in pairs}) == 9
    )  # each template goes with each


def test_seed_alone_decides(transform, source):
    copy = pickle.loads(pickle.dumps(transform))
    one, again, other = (
        transform.sample(source, 1),
        copy.sample(source, 1),
        transform.sample(source, 2),
    )
    assert (
        same(one, again)
        and one.texts == again.texts
        and torch.equal(one.partner[1].image, again.partner[1].image)
    )
    assert not torch.equal(one.view.image, other.view.image)
    assert not torch.equal(one.partner[1].image, other.partner[1].image)
    itself = transform.sample(replace(source, partner=Partner("dog", source.photo)), 1)
    assert not torch.equal(itself.view.image, itself.partner[1].image)


def test_a_part_left_out_changes_no_other(transform, source):
    for seed in range(8):
        whole = transform.sample(source, seed)
        for change in (
            {"with_questions": False},
            {"with_partner": False},
            {"masking": "one"},
            {"masking": "nouns"},
            {"label_count": 3},
        ):
            part = replace(transform, **change).sample(source, seed)
            assert same(part, whole) and part.view.box == whole.view.box
            if "with_partner" not in change:
                assert torch.equal(part.partner[1].image, whole.partner[1].image)
        assert same(transform.sample(replace(source, partner=None), seed), whole)


def test_parts_that_are_left_out_are_none(transform, source):
    bare = replace(transform, with_questions=False, with_partner=False)
    batch = bare.collate([bare.sample(source, 0)]).to(torch.device("cpu"))
    assert batch.entities is None and batch.partners is None and batch.captions is not None
    assert transform.takes_partner and not bare.takes_partner
    unlabeled = transform.collate([transform.sample(Source("k", source.photo), 0)]).to(
        torch.device("cpu")
    )
    assert unlabeled.captions is None and unlabeled.entities is None


def test_a_photo_without_partner_gets_zeros(transform, tokenizer, source):
    pairs = [source, replace(source, partner=None), source]
    samples = [transform.sample(item, seed) for seed, item in enumerate(pairs)]
    partners = transform.collate(samples).to(torch.device("cpu")).partners
    assert partners.present.tolist() == [True, False, True]
    assert not partners.images[1].any() and partners.images[0].any()
    assert partners.images.shape == (3, 3, 32, 32)
    assert torch.equal(partners.entities.ids[0], tokenizer(["a photo of a dog"]).ids[0])


def test_views_are_crops_that_boxes_describe(transform, source):
    plain = replace(transform, jitter=(0.0,) * 4)
    for seed in range(12):
        view = plain.sample(source, seed).view
        image = PackedViews.of([view]).unpacked()[0]
        left, top, right, bottom = view.box
        across = torch.linspace(
            left, right, 32
        )  # the photo's red grows from left to right, its green downwards
        assert_close(
            image[0].mean(0), across.flip(0) if view.flipped else across, atol=0.05, rtol=0
        )
        assert_close(image[1].mean(1), torch.linspace(top, bottom, 32), atol=0.05, rtol=0)
    flips = np.array([plain.sample(source, seed).view.flipped for seed in range(40)])
    assert 5 < flips.sum() < 35


def test_a_tokenizer_without_mask_token_is_refused(transform, photo):
    unable = Tokenizer(
        tokenizers.Tokenizer(tokenizers.models.WordLevel({"dog": 0}, unk_token="dog"))
    )
    with pytest.raises(ValueError, match="no mask token"):
        text_of(replace(transform, tokenizer=unable), "a dog", photo)


def test_an_index_of_other_entities_is_refused(transform, tmp_path):
    shapes.write(tmp_path / "data", 6, finder=EntitySet.read("shapes"))
    data = DataConfig(shards=(str(tmp_path / "data"),), index=str(tmp_path / "data" / shapes.INDEX))
    theirs = replace(transform, entity_set=EntitySet.read("shapes"))
    assert Stream(data, theirs, 2, 0, Share(0, 1)).index is not None
    with pytest.raises(ValueError, match=r"the entity '\w+', which is not in the method's list"):
        Stream(
            data, replace(transform, entity_set=EntitySet.read("ovsegmentor")), 2, 0, Share(0, 1)
        )


def test_batches_come_from_data_workers_whose_number_changes_no_sample(transform, tmp_path):
    shapes.write(tmp_path / "data", 12, finder=EntitySet.read("shapes"))
    ours = replace(transform, entity_set=EntitySet.read("shapes"))
    seen = []
    for workers in (0, 2):
        index = str(tmp_path / "data" / shapes.INDEX)
        data = DataConfig(
            shards=(str(tmp_path / "data"),), index=index, workers=workers, shuffle_buffer=4
        )
        stream = Stream(data, Keyed(ours), 1, 3, Share(0, 1))
        batches = [item.batch for item in itertools.islice(build_loader(stream, workers), 12)]
        seen.append({keyed.key: keyed.batch for keyed in batches})
    common = seen[0].keys() & seen[1].keys()
    assert len(common) > 4
    for key in common:
        one, other = seen[0][key], seen[1][key]
        assert torch.equal(one.images, other.images)
        assert (
            torch.equal(one.partners.images, other.partners.images) and one.partners.present.all()
        )
        assert (
            torch.equal(one.entities.questions.ids, other.entities.questions.ids)
            and one.entities.masked.all()
        )
