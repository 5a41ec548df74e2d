"""OVSegmentor: what each term and setting does."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.config import ViewConfig
from maskfree.data.sample import Partner, Source
from maskfree.methods.ovsegmentor.batch import EntityTexts, OVSegmentorBatch, Partners
from maskfree.methods.ovsegmentor.mask_matching import MATCHINGS
from maskfree.methods.ovsegmentor.model import OVSegmentor
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.recipes import ovsegmentor
from maskfree.types import Tokens
from tiny import CAPTIONS, TINY_GROUPING, TINY_TEXT, tiny_ovsegmentor_config


def random_batch(number: int = 5) -> OVSegmentorBatch:
    """Photos, partners and texts of random tokens; everything is there, and everything counts."""

    def texts(longest: int, number: int = number) -> Tokens:
        lengths = torch.randint(3, longest + 1, (number, 1))
        return Tokens(torch.randint(5, 400, (number, longest)), torch.arange(longest) < lengths)

    every = torch.ones(number, dtype=torch.bool)
    return OVSegmentorBatch(
        images=torch.rand(number, 3, 64, 64),
        captions=texts(9),
        entities=EntityTexts(
            questions=texts(8),
            answers=texts(7),
            masked=every,
            targets=torch.randint(-1, 60, (number, 8)),
            labels=texts(6, 2 * number),
            labeled=torch.tensor([[True, False]] + [[True, True]] * (number - 1)),
        ),
        partners=Partners(torch.rand(number, 3, 64, 64), texts(5), every),
    )


def built(**changes: Any) -> OVSegmentor:
    """A tiny method whose groups are as sure of their patches as those of 768 channels.

    Else no target mask of so few channels would reach the threshold.
    """
    method = tiny_ovsegmentor_config(**changes).build()
    for layer in (method.image.binding.q_proj, method.image.binding.k_proj):
        torch.nn.init.normal_(layer.weight, std=0.4)
    if method.masks is not None:
        method.masks.teacher.load_state_dict(method.image.state_dict())
    return method


def masks(**changes: Any) -> MaskConfig:
    return MaskConfig(**({"start": 0.0} | changes))


def moved(part: torch.nn.Module) -> bool:
    """Whether a gradient reaches any parameter."""
    return any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


ENTITIES = [
    EntityConfig(objective=name, num_heads=3)
    for name in ("completion", "labels", "words", "words_without_groups")
]
MASKS = [
    masks(),
    masks(objective="groups"),
    masks(matching="features"),
    masks(matching="one_way"),
    masks(matching="released"),
]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.objective)
def test_every_entity_objective_teaches_what_it_reads(entity):
    method = built(entity=entity, masks=None)
    losses = method(random_batch())
    assert set(losses.terms) == {"cross", "entity"} and losses.total.isfinite()
    losses.terms["entity"].backward()
    assert moved(method.text.encoder)
    assert moved(method.image) == (entity.objective != "words_without_groups")
    for name, part in method.entity.named_children():
        assert moved(part), name


@pytest.mark.parametrize("config", MASKS)
def test_every_mask_objective_teaches_the_image_encoder_alone(config):
    method = built(masks=config)
    losses = method(random_batch())
    assert set(losses.terms) == {"cross", "entity", "masks"} and losses.total.isfinite()
    losses.terms["masks"].backward(retain_graph=True)
    assert moved(method.image)
    assert not any(moved(part) for part in (method.text, method.entity, method.masks))
    losses.total.backward()
    assert moved(method.entity) and not any(
        p.requires_grad or moved(method.masks) for p in method.masks.parameters()
    )


def test_the_decoder_learns_from_the_entities_alone():
    method = built()
    losses = method(random_batch())
    (losses.terms["cross"] + losses.terms["masks"]).backward(retain_graph=True)
    assert not moved(method.entity)
    losses.terms["entity"].backward()
    assert moved(method.entity.decoder) and moved(method.entity.bridge)


@pytest.mark.parametrize(
    ("config", "learns"),
    [
        (masks(), True),
        (masks(matching="features"), True),
        (masks(matching="one_way"), False),
        (masks(matching="released"), False),
    ],
)
def test_partners_teach_where_they_are_seen_by_the_trained_encoder(config, learns):
    method, batch = built(masks=config), random_batch()
    for photos in (batch.images, batch.partners.images):
        photos.requires_grad_()
    method(batch).terms["masks"].backward()
    assert batch.images.grad.any()
    assert (batch.partners.images.grad is not None) == learns


@pytest.mark.parametrize(
    ("matching", "ratio", "count"),
    [
        ("one_way", 0.25, 1),
        ("one_way", 0.5, 2),
        ("one_way", 1.0, 4),
        # The released code stops the gradient of the lowest int(rK) groups.
        ("released", 0.2, 4),
        ("released", 0.25, 3),
        ("released", 0.5, 2),
        ("released", 0.9, 1),
    ],
)
def test_only_the_closest_groups_learn(matching, ratio, count):
    method, seen = built(masks=masks(matching=matching, ratio=ratio)), []
    method.image.register_forward_hook(
        lambda module, images, grouped: seen.append(grouped.assignment.queries)
    )
    term = method(random_batch()).terms["masks"]
    (gradient,) = torch.autograd.grad(term, seen)
    assert (gradient.abs().sum(2) > 0).sum(1).tolist() == [count] * 5


@torch.no_grad()
def test_both_directions_are_the_mean_of_each(monkeypatch):
    symmetric = replace(MATCHINGS["one_way"], symmetric=True)
    both, batch = built(masks=masks(matching="one_way")).eval(), random_batch()
    one = built(masks=masks(matching="one_way")).eval()
    monkeypatch.setattr(both.masks, "_matching", symmetric)
    one.load_state_dict(both.state_dict())
    swapped = replace(
        batch, images=batch.partners.images, partners=replace(batch.partners, images=batch.images)
    )
    there, back = (one(b).terms["masks"] for b in (batch, swapped))
    assert abs(there - back) > 1e-5
    assert_close(both(batch).terms["masks"], (there + back) / 2)


@pytest.mark.parametrize("objective", ["masks", "groups"])
@torch.no_grad()
def test_photos_without_a_partner_do_not_matter(objective):
    method, batch = built(masks=masks(objective=objective)).eval(), random_batch()
    present = torch.tensor([True, False, True, True, False])
    partners = replace(batch.partners, present=present)
    losses = method(replace(batch, partners=partners))
    assert losses.metrics["paired"] == 0.6
    other = torch.where(present.view(-1, 1, 1, 1), partners.images, torch.zeros(()))
    assert_close(
        method(replace(batch, partners=replace(partners, images=other))).terms["masks"],
        losses.terms["masks"],
    )
    assert abs(method(batch).terms["masks"] - losses.terms["masks"]) > 1e-6


@pytest.mark.parametrize("config", MASKS)
def test_no_partner_at_all_is_no_loss(config):
    method, batch = built(masks=config), random_batch()
    losses = method(
        replace(batch, partners=replace(batch.partners, present=torch.zeros(5, dtype=torch.bool)))
    )
    assert losses.terms["masks"] == 0
    losses.total.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in method.parameters())


@pytest.mark.parametrize("form", ["paper", "released"])
def test_captions_in_which_nothing_was_masked(form):
    all_questions = form == "released"
    method, batch = built(form=form, masks=None).eval(), random_batch()
    texts = replace(batch.entities, masked=torch.tensor([True, False, True, True, False]))
    losses = method(replace(batch, entities=texts))
    ids = torch.where(texts.masked[:, None], texts.answers.ids, 7)
    other = replace(texts, answers=Tokens(ids, texts.answers.mask))
    changed = method(replace(batch, entities=other)).terms["entity"]
    assert torch.equal(changed, losses.terms["entity"]) != all_questions
    assert (abs(method(batch).terms["entity"] - losses.terms["entity"]) < 1e-6) == all_questions

    none = replace(texts, masked=torch.zeros(5, dtype=torch.bool))
    losses = method(replace(batch, entities=none))
    assert (losses.terms["entity"] == 0) != all_questions
    losses.total.backward()
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all()) for p in method.entity.parameters()
    )


@pytest.mark.parametrize("dim", [21, 30])
def test_a_released_model_may_have_roberta_and_other_widths(dim):
    text = replace(TINY_TEXT, family="roberta", pooling="first")
    image = replace(TINY_GROUPING, dim=dim, form="released", num_tokens=6)
    method = tiny_ovsegmentor_config(
        text=text, image=image, form="released", masks=masks(matching="released")
    ).build()
    decoder = method.entity.decoder
    assert decoder.dim == min(dim, 24)
    losses = method(random_batch())
    assert losses.total.isfinite()
    losses.total.backward()
    assert moved(method.text.encoder) and moved(method.image)
    assert moved(decoder.widen if dim < 24 else decoder.narrow)


def test_masks_wait_for_their_part_of_the_training():
    config = tiny_ovsegmentor_config(masks=MaskConfig(start=0.5))
    method, batch = config.build(), random_batch()
    assert set(method(batch).terms) == {"cross", "entity"}
    method.after_step(0, 4)
    assert set(method(batch).terms) == {"cross", "entity"}
    method.after_step(1, 4)
    assert set(method(batch).terms) == {"cross", "entity", "masks"}
    resumed = config.build()
    resumed.load_state_dict(method.state_dict())
    assert set(resumed(batch).terms) == {"cross", "entity", "masks"}


@torch.no_grad()
def test_the_target_encoder_follows():
    method = built(masks=masks(momentum=0.75))
    teacher, student = (
        dict(method.masks.teacher.named_parameters()),
        dict(method.image.named_parameters()),
    )
    for parameter in student.values():
        parameter.add_(torch.rand_like(parameter))
    expected = {name: 0.75 * value + 0.25 * student[name] for name, value in teacher.items()}
    method.after_step(0, 9)
    assert_close({name: value.data for name, value in teacher.items()}, expected)


def test_a_training_begins_with_the_loaded_encoder_as_its_target():
    first, second = built(masks=None), built()
    second.load_state_dict(first.state_dict(), strict=False)
    second.after_step(3, 4)
    second.on_train_start()
    assert_close(second.masks.teacher.state_dict(), first.image.state_dict(), atol=0, rtol=0)
    assert second.masks.progress == 0


def test_terms_have_their_weights():
    heavy = built(entity=EntityConfig(weight=3.0, num_heads=3), masks=masks(weight=0.7)).eval()
    plain, batch = built(masks=masks(weight=0.1)).eval(), random_batch()
    plain.load_state_dict(heavy.state_dict())
    one, other = plain(batch).terms, heavy(batch).terms
    assert_close(
        other, {"cross": one["cross"], "entity": 3 * one["entity"], "masks": 7 * one["masks"]}
    )


def test_a_frozen_text_encoder_stays():
    method = built(text=replace(TINY_TEXT, frozen=True))
    method(random_batch()).total.backward()
    assert moved(method.entity.decoder) and not moved(method.text.encoder)


def test_samples_hold_what_the_terms_need_and_no_more(tiny_tokenizer, photo):
    def made(**changes: Any) -> OVSegmentorBatch:
        transform = tiny_ovsegmentor_config(**changes).build_transform(tiny_tokenizer)
        assert transform.takes_partner == (changes.get("masks", True) is not None)
        source = Source("key", photo(), CAPTIONS, Partner("dog", photo((40, 90))))
        return transform.collate([transform.sample(source, seed=3)]).to(torch.device("cpu"))

    whole = made()
    assert whole.partners.present.all() and whole.entities.labels is None
    assert made(masks=None).partners is None and made(entity=None).entities is None
    labels = made(entity=EntityConfig(objective="labels")).entities.labeled
    assert labels.shape == (1, 3)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.2, -0.5])
def test_a_share_of_no_groups_or_more_than_all_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"masks\.ratio (is )?{ratio}.* must be") as raised:
        built(masks=MaskConfig(ratio=ratio))
    assert "\n" not in str(raised.value)


def test_a_released_ratio_of_all_groups_is_refused():
    with pytest.raises(ValueError, match=r"masks\.ratio 1\.0 of 4 groups lets 0 learn"):
        built(masks=masks(matching="released", ratio=1.0))


def test_final_features_must_be_there_to_be_compared():
    image = replace(TINY_GROUPING, form="light")
    with pytest.raises(ValueError, match=r"'features' compares final image features"):
        tiny_ovsegmentor_config(image=image, masks=masks(matching="features")).build()


def wide(**changes: Any) -> OVSegmentor:
    """The paper's recipe in its own width, with few and untrained layers, and nothing inflated."""
    image = replace(ovsegmentor().method.image, weights=None, depths=(1, 1), side_px=64)
    return tiny_ovsegmentor_config(image=image, entity=None, masks=masks(**changes)).build()


def test_mask_loss_of_the_papers_width_has_targets_and_teaches():
    method = wide()
    losses = method(random_batch(3))
    assert losses.metrics["empty_targets"] < 0.25
    assert 0.1 < losses.metrics["sure_patches"] < 0.9
    assert 0.01 < losses.terms["masks"] < 0.09
    assert not method.concerns({name: value.item() for name, value in losses.metrics.items()})
    losses.terms["masks"].backward()
    assert method.image.pos_embed.grad.norm() > 1e-4


def eq_10_to_12(method: OVSegmentor, batch: OVSegmentorBatch, final: bool) -> torch.Tensor:
    """L_mask of the paper photo by photo, with every permutation tried."""

    def parts(grouped):
        groups = grouped.groups if final else grouped.assignment.queries
        patches = grouped.features if final else grouped.assignment.keys
        return groups, patches, method.image_projection(grouped.groups)

    photos, partners = batch.images, batch.partners.images
    shared = method.encode_text(batch.partners.entities)
    seen = [parts(encoder(photos)) for encoder in (method.image, method.masks.teacher)]
    other = [parts(encoder(partners)) for encoder in (method.image, method.masks.teacher)]
    losses = []
    for row in batch.partners.present.nonzero()[:, 0].tolist():
        for (_, target), (online, _) in ((other, seen), (seen, other)):
            # Predicted masks lie on the target's photo, seen by the trained encoder.
            on_photo = (other if target is other[1] else seen)[0][1][row]
            own = [(each[2][row] @ shared[row]).argsort()[-2:] for each in (target, online)]
            wanted = (target[1][row] @ target[0][row][own[0]].T).sigmoid().T
            found = (on_photo @ online[0][row][own[1]].T).sigmoid().T
            orders = list(itertools.permutations(range(2)))
            cosines = [F.cosine_similarity(wanted, found[list(o)]).sum() for o in orders]
            found = found[list(orders[torch.stack(cosines).argmax()])]
            inside = (wanted >= 0.65).float()
            dice = 1 - 2 * (inside * found).sum(1) / (inside.sum(1) + found.sum(1))
            losses.append(dice.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("matching", ["paper", "features"])
@torch.no_grad()
def test_mask_loss_is_that_of_the_equations(matching):
    method, batch = built(masks=masks(matching=matching, weight=1.0)).eval(), random_batch()
    # The momentum encoder is another one by now.
    for weight in method.masks.teacher.parameters():
        weight.add_(0.3 * weight.std(correction=0) * torch.randn_like(weight))
    present = torch.tensor([True, False, True, True, True])
    batch = replace(batch, partners=replace(batch.partners, present=present))
    losses = method(batch)
    assert_close(losses.terms["masks"], eq_10_to_12(method, batch, matching == "features"))
    assert losses.metrics["empty_targets"] < 1


def test_empty_targets_are_told(monkeypatch):
    scaled = replace(MATCHINGS["paper"], scaled=True)
    method = wide()
    monkeypatch.setattr(method.masks, "_matching", scaled)
    metrics = method(random_batch(3)).metrics
    assert metrics["empty_targets"] > 0.5
    (concern,) = method.concerns({name: value.item() for name, value in metrics.items()})
    assert "target masks of L_mask have no patch" in concern
    assert method.concerns({"paired": 1.0}) == []


def test_other_bad_input_is_named(tiny_tokenizer):
    with pytest.raises(ValueError, match="OVSegmentor learns from captions"):
        built()(replace(random_batch(), captions=None))
    with pytest.raises(ValueError, match="a view of 60 px does not divide into patches of 16 px"):
        built(views=ViewConfig(side_px=60))
    with pytest.raises(ValueError, match="OVSegmentor learns from captions"):
        tiny_ovsegmentor_config().build_transform(None)
    with pytest.raises(ValueError, match="no tokenizer: set tokenizer"):
        tiny_ovsegmentor_config().tokenizer_source()
    with pytest.raises(ValueError, match="the tokenizer has"):
        small = replace(TINY_TEXT, architecture=TINY_TEXT.architecture | {"vocab_size": 20})
        tiny_ovsegmentor_config(text=small).build_transform(tiny_tokenizer)
