"""The terms of CLIP-S4 against a slow reading of the paper's equations, and what its memory keeps."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.methods.clips4_terms import (
    ContrastTerm,
    PixelLabelsTerm,
    Segments,
    SemanticTerm,
    TargetClasses,
    embedding_term,
)

PHOTOS, DIM, HEIGHT, WIDTH, NUM_SEGMENTS = 2, 5, 4, 7, 3
VOID = 255


def unit(*shape: int, dim: int = 1) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=dim)


def some_pixels() -> Tensor:
    return unit(2 * PHOTOS, DIM, HEIGHT, WIDTH)


def some_regions() -> Tensor:
    """Two regions and void, the same numbers in all photos, and in other places in each view."""
    return torch.tensor([0, 7, VOID])[torch.randint(0, 3, (2 * PHOTOS, HEIGHT, WIDTH))]


def cut(pixels: Tensor, regions: Tensor, teacher: Tensor | None = None) -> Segments:
    return Segments.cut(pixels, regions, teacher, NUM_SEGMENTS, 1.0)


def contrast(**changes) -> ContrastTerm:
    settings = {"weight": 1.0, "concentration": 10.0, "memory": 0, "leave_out_own": False, "thin": 1, "dim": DIM}
    return ContrastTerm(**(settings | changes))


@dataclass(frozen=True)
class Slow:
    """A segment as the paper has it: some pixels of a view, in one of its photo's regions."""

    pixels: frozenset[tuple[int, int, int]]
    region: tuple[int, int] | None
    embedding: Tensor
    teacher: Tensor | None = None


def slow_segments(segments: Segments, regions: Tensor, teacher: Tensor | None = None) -> list[Slow]:
    members: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for view, y, x in torch.cartesian_prod(*map(torch.arange, segments.ids.shape)).tolist():
        if segments.ids[view, y, x] >= 0:
            members.setdefault((view, int(segments.ids[view, y, x])), []).append((view, y, x))
    found = []
    for (view, _), places in members.items():
        (number,) = {int(regions[place]) for place in places}  # or a segment would lie in two regions
        mean = torch.stack([segments.pixels[v, :, y, x] for v, y, x in places]).mean(0)
        seen = None if teacher is None else torch.stack([teacher[v, :, y, x] for v, y, x in places]).mean(0)
        found.append(Slow(frozenset(places), (view // 2, number), mean / mean.norm(), seen))
    return found


def slow_contrast(
    segments: Segments, regions: Tensor, memory: Tensor | None = None, without_own: bool = False, thin: int = 1
) -> Tensor:
    """Eq. 1, pixel by pixel and segment by segment, with kappa 10."""
    everything = slow_segments(segments, regions)
    everything += [Slow(frozenset(), None, row) for row in ([] if memory is None else memory)]
    losses = []
    for place in torch.cartesian_prod(*map(torch.arange, regions.shape)).tolist():
        view, y, x = place
        if regions[view, y, x] == VOID or (y + x) % thin:
            continue
        weights = [(10 * segments.pixels[view, :, y, x] @ each.embedding).exp() for each in everything]
        positive = [each.region == (view // 2, int(regions[view, y, x])) for each in everything]
        if without_own and sum(positive) > 1:
            own = next(i for i, each in enumerate(everything) if tuple(place) in each.pixels)
            weights[own] = torch.zeros(())
        above = sum(weight for weight, there in zip(weights, positive, strict=True) if there)
        losses.append(-(above / sum(weights)).log())
    return torch.stack(losses).mean()


def test_segments_lie_in_one_region_of_one_view():
    pixels, regions = some_pixels(), some_regions()
    segments = cut(pixels, regions)
    assert (segments.ids < 0).equal(regions == VOID)
    slow = slow_segments(segments, regions)
    assert len(slow) == len(segments.embeddings) > 3 * NUM_SEGMENTS
    for each in slow:
        view, y, x = next(iter(each.pixels))
        row = int(segments.own()[0][view, y, x])
        assert_close(segments.embeddings[row], each.embedding)
        assert segments.own()[1][view, y, x] == segments.regions[row]


@pytest.mark.parametrize("thin", [1, 2, 3])
@pytest.mark.parametrize("leave_out_own", [False, True])
def test_contrast_is_equation_1(leave_out_own, thin):
    pixels, regions = some_pixels(), some_regions()
    segments = cut(pixels, regions)
    loss = contrast(leave_out_own=leave_out_own, thin=thin)(segments).terms["contrast"]
    assert_close(loss, slow_contrast(segments, regions, without_own=leave_out_own, thin=thin))


def test_a_region_is_the_same_in_both_views_of_a_photo_and_in_no_other_photo():
    regions = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.long)
    regions[..., WIDTH // 2 :] = 1
    directions = torch.eye(DIM)[regions].movedim(-1, 1)  # what a perfect student would say of the first photo
    directions[2:] = directions[2:].roll(2, dims=1)
    right = contrast()(cut(directions, regions)).terms["contrast"]
    swapped = regions.clone()
    swapped[1] = 1 - regions[1]
    assert right < 0.01 < contrast()(cut(directions, swapped)).terms["contrast"]
    alike = torch.cat([directions[:2], directions[:2]])
    assert contrast()(cut(alike, regions)).terms["contrast"] > 0.6  # another photo's segments push, however alike


def test_of_more_segments_than_there_is_room_for_the_smallest_do_not_count():
    regions = torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH) // 2  # 14 regions of two pixels, and room for 6
    regions = regions.repeat(2, 1, 1)
    segments = cut(some_pixels()[:2], regions)
    sizes = torch.stack([view[view >= 0].bincount(minlength=6) for view in segments.ids])
    assert segments.most == 6 and len(segments.embeddings) == 12 and (sizes > 0).all()
    counted = regions.masked_fill(segments.ids < 0, VOID)
    assert_close(contrast()(segments).terms["contrast"], slow_contrast(segments, counted))


def test_weights_scale_terms():
    pixels, regions, teacher = some_pixels(), some_regions(), some_pixels()
    segments = cut(pixels, regions, teacher)
    whole, half = (contrast(weight=weight)(segments).terms["contrast"] for weight in (1.0, 0.5))
    assert_close(half, whole / 2)
    whole, half = (embedding_term(segments, weight) for weight in (1.0, 0.5))
    assert_close(half.terms["embedding"], whole.terms["embedding"] / 2)
    assert half.health == whole.health


def test_memory_holds_the_newest_segments_first_and_no_more_than_it_has_room_for():
    batches = [cut(some_pixels(), some_regions()) for _ in range(3)]
    first, second, third = (segments.embeddings for segments in batches)
    room = len(first) + len(second) + 3
    term = contrast(memory=room)
    term(batches[0])
    assert_close(term.bank[: int(term.filled)], first)
    term(batches[1])
    assert_close(term.bank[: int(term.filled)], torch.cat([second, first]))
    term(batches[2])
    assert int(term.filled) == len(term.bank) == room
    assert_close(term.bank, torch.cat([third, second, first])[:room])
    assert not term.bank.requires_grad


def test_more_segments_than_the_memory_has_room_for():
    segments = cut(some_pixels(), some_regions())
    term = contrast(memory=5)
    term(segments)
    assert_close(term.bank, segments.embeddings[:5])
    none = contrast(memory=0)
    assert_close(none(segments).terms, none(segments).terms)


def test_remembered_segments_are_negatives_only():
    regions = some_regions()
    before, now = cut(some_pixels(), regions), cut(some_pixels(), regions)
    term = contrast(memory=100)
    alone = term(before).terms["contrast"]
    assert_close(alone, slow_contrast(before, regions))  # the memory was empty
    loss = term(now).terms["contrast"]
    assert_close(loss, slow_contrast(now, regions, before.embeddings))
    assert loss > contrast()(now).terms["contrast"]


def test_memory_comes_back_with_a_state():
    regions = some_regions()
    before, now = cut(some_pixels(), regions), cut(some_pixels(), regions)
    term, other = contrast(memory=40), contrast(memory=40)
    term(before)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert_close(other(now).terms, term(now).terms)


def test_nothing_is_remembered_outside_training():
    term = contrast(memory=40).eval()
    term(cut(some_pixels(), some_regions()))
    assert int(term.filled) == 0 and not term.bank.any()


def test_embedding_consistency_is_equation_2():
    pixels, regions, teacher = some_pixels(), some_regions(), some_pixels()
    losses = embedding_term(cut(pixels, regions, teacher), 1.0)
    slow = slow_segments(cut(pixels, regions), regions, teacher)
    expected = torch.stack([1 - F.cosine_similarity(each.embedding, each.teacher, dim=0) for each in slow]).mean()
    assert_close(losses.terms["embedding"], expected)
    assert_close(losses.health["similarity"], 1 - expected)


def classes_of(*sizes: int, unknown: int = 4) -> TargetClasses:
    """Known classes of so many phrases each, and unknown ones, whose length does not count."""
    return TargetClasses(unit(sum(sizes), DIM), sizes, 3 * unit(unknown, DIM))


def semantic_of(classes: TargetClasses, **changes) -> SemanticTerm:
    return SemanticTerm(**({"weight": 1.0, "scale": 20.0, "presence": 0.0, "soft": False, "classes": classes} | changes))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 1)])
def test_semantic_consistency_is_equations_3_and_4(sizes, soft):
    """Of a class with several phrases the closest one counts. Soft targets are not in the paper."""
    pixels, regions, teacher = some_pixels(), some_regions(), some_pixels()
    term = semantic_of(classes_of(*sizes), weight=0.5, soft=soft)
    losses = term(cut(pixels, regions, teacher), teacher)
    phrases = [*term.classes.known.split(sizes), *term.classes.unknown.detach().split(1)]

    def cosines(embedding: Tensor) -> Tensor:
        return torch.stack([F.cosine_similarity(embedding, group).max() for group in phrases])

    crossed, pulled, agreed, known = [], [], [], []
    for each in slow_segments(cut(pixels, regions), regions, teacher):
        label = int(cosines(each.teacher).argmax())
        logits = 20 * cosines(each.embedding)
        targets = (20 * cosines(each.teacher)).softmax(0) if soft else torch.eye(6)[label]
        crossed.append(-(targets * (logits.exp() / logits.exp().sum()).log()).sum())
        agreed.append(int(logits.argmax()) == label)
        known.append(label < 2)
        if label >= 2:
            pulled.append(1 - cosines(each.teacher)[label])
    assert 0 < len(pulled) < len(crossed)
    assert_close(losses.terms["semantic"], torch.stack(crossed).mean() / 2)
    assert_close(losses.terms["unknown"], torch.stack(pulled).mean())
    assert losses.health["same_class"].item() == pytest.approx(sum(agreed) / len(agreed))
    assert losses.health["known_share"].item() == pytest.approx(sum(known) / len(known))


def test_unknown_classes_move_to_their_segments_and_known_ones_stay():
    known, unknown = torch.eye(DIM)[:1], torch.eye(DIM)[1:2]
    classes = TargetClasses(known, [1], unknown)
    seen = F.normalize(torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]), dim=0)  # between the unknown class and what has none
    teacher = seen.view(1, DIM, 1, 1).expand(2 * PHOTOS, DIM, HEIGHT, WIDTH)
    term, optimiser = semantic_of(classes), torch.optim.SGD([classes.unknown], lr=0.2)
    distances = []
    for _ in range(15):
        optimiser.zero_grad()
        losses = term(cut(some_pixels(), some_regions(), teacher), teacher)
        losses.total.backward()
        optimiser.step()
        distances.append(losses.terms["unknown"].item())
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.1 * distances[0]
    assert torch.equal(classes.known, known)
    assert [name for name, _ in classes.named_parameters()] == ["unknown"]
    assert {"known", "unknown"} <= set(classes.state_dict())


def test_prototypes_learn_from_the_teacher_alone_and_the_student_from_labels_alone():
    pixels, teacher = some_pixels().requires_grad_(), some_pixels().requires_grad_()
    term = semantic_of(classes_of(1, 1))
    losses = term(cut(pixels, some_regions(), teacher), teacher)
    losses.terms["semantic"].backward(retain_graph=True)
    assert pixels.grad.any() and term.classes.unknown.grad is None and teacher.grad is None
    pixels.grad = None
    losses.terms["unknown"].backward()
    assert term.classes.unknown.grad.any() and pixels.grad is None and teacher.grad is None


def test_without_unknown_classes_there_is_no_term_for_them():
    teacher = some_pixels()
    term = semantic_of(classes_of(1, 2, unknown=0))
    losses = term(cut(some_pixels(), some_regions(), teacher), teacher)
    assert set(losses.terms) == {"semantic"} and losses.health["known_share"] == 1
    assert not any(weight.requires_grad for weight in term.parameters())


def seen_in_a_corner() -> tuple[TargetClasses, Segments, Tensor]:
    """Class 0 is ahead of class 1 by a hair everywhere, but the second photo's first view has a corner of class 1."""
    first, second = torch.eye(DIM)[:2]
    teacher = (first + 0.99 * second).view(1, DIM, 1, 1).repeat(4, 1, HEIGHT, WIDTH)
    teacher[2, :, -2:, -3:] = second.view(DIM, 1, 1)
    teacher = F.normalize(teacher, dim=1)
    classes = TargetClasses(torch.stack([first, second]), [1, 1], torch.zeros(0, DIM))
    return classes, cut(teacher, torch.zeros(4, HEIGHT, WIDTH, dtype=torch.long), teacher), teacher


def test_classes_that_the_teacher_sees_nowhere_in_a_photo_are_held_back():
    """In the photo with a corner of class 1 it wins in both views, also where its twin, who has no corner, is unsure."""
    classes, segments, teacher = seen_in_a_corner()
    theirs = F.normalize(segments.teacher, dim=1)
    plain, held = (
        semantic_of(classes, presence=weight).eval()._scores(theirs, segments, teacher).argmax(1) for weight in (0.0, 5.0)
    )
    assert (plain[segments.views != 2] == 0).all() and 1 in plain[segments.views == 2]
    assert (held[segments.views < 2] == 0).all() and (held[segments.views == 3] == 1).all()


def test_in_training_a_class_that_is_held_back_keeps_its_share():
    teacher = some_pixels()
    segments = cut(some_pixels(), some_regions(), teacher)
    theirs, term = F.normalize(segments.teacher, dim=1), semantic_of(classes_of(1, 2), presence=5.0)
    held = term.eval()._scores(theirs, segments, teacher)  # as held back alone: all classes have the same share so far
    scores = term.train()._scores(theirs, segments, teacher)
    usual = (20 * term.classes.cosines(theirs[..., None, None])[..., 0, 0]).softmax(1).mean(0)
    assert_close(term.shares[0], usual)
    assert_close(term.shares[1], (20 * held).softmax(1).mean(0))
    assert ((20 * scores).softmax(1).mean(0) - usual).abs().sum() < 0.6 * ((20 * held).softmax(1).mean(0) - usual).abs().sum()
    assert {"shares", "seen"} <= set(term.state_dict())


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_unknown_classes_get_their_share_of_the_segments(share):
    classes, segments = classes_of(1, 2), unit(200, DIM)
    classes.share_out(segments, share)
    winners = classes.cosines(segments[..., None, None])[..., 0, 0].argmax(1)
    assert (winners >= classes.num_known).float().mean().item() == pytest.approx(share, abs=0.02)


def test_pixel_labels_are_the_classes_of_the_nearest_phrases():
    pixels, teacher, phrases = some_pixels(), some_pixels(), unit(4, DIM)
    losses = PixelLabelsTerm(weight=2.0, scale=7.0, phrases=phrases, synonyms=(1, 2, 1))(pixels, teacher)

    def cosines(embedding: Tensor) -> Tensor:
        return torch.stack([(group @ embedding).max() for group in phrases.split((1, 2, 1))])

    expected, same = [], []
    for view, y, x in torch.cartesian_prod(*map(torch.arange, (2 * PHOTOS, HEIGHT, WIDTH))).tolist():
        label = int(cosines(teacher[view, :, y, x]).argmax())
        logits = 7 * cosines(pixels[view, :, y, x])
        expected.append(-logits.log_softmax(0)[label])
        same.append(int(logits.argmax()) == label)
    assert_close(losses.terms["labels"], 2 * torch.stack(expected).mean())
    assert losses.health["same_class"].item() == pytest.approx(sum(same) / len(same))


@pytest.mark.parametrize("leave_out_own", [False, True])
@pytest.mark.parametrize("views", [[0], [0, 1], list(range(2 * PHOTOS))])
def test_views_without_regions_count_for_nothing(views, leave_out_own):
    """The first view, the whole first photo, or all: what is left has the loss and gradients that it has alone."""
    regions = some_regions()
    regions[views] = VOID
    pixels, teacher = some_pixels().requires_grad_(), some_pixels()
    term = contrast(leave_out_own=leave_out_own, memory=50)
    segments = cut(pixels, regions, teacher)
    parts = [term(segments), embedding_term(segments, 1.0), semantic_of(classes_of(1, 2))(segments, teacher)]
    sum(part.total for part in parts).backward()
    assert all(value.isfinite() for part in parts for value in (*part.terms.values(), *part.health.values()))
    assert pixels.grad.isfinite().all() and not pixels.grad[views].any()
    if len(views) == 2 * PHOTOS:
        assert all(part.total == 0 for part in parts) and not pixels.grad.any()
    else:
        assert_close(parts[0].terms["contrast"], slow_contrast(segments, regions, without_own=leave_out_own))


def test_a_photo_of_one_colour_has_one_embedding_and_finite_terms():
    pixels = unit(1, DIM, 1, 1).expand(2, DIM, HEIGHT, WIDTH).clone().requires_grad_()
    regions = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.long)
    segments = cut(pixels, regions, pixels.detach())
    loss = contrast()(segments).total + embedding_term(segments, 1.0).total
    loss.backward()
    assert_close(loss, torch.zeros(()), atol=1e-5, rtol=0)
    assert pixels.grad.isfinite().all()
    assert 2 <= len(segments.embeddings) <= 2 * NUM_SEGMENTS
