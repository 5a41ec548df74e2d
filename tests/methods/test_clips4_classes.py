"""The target classes of CLIP-S4, the terms that learn them, and MaskCLIP+'s labels, against a slow
reading.
"""

from __future__ import annotations

import pytest
import torch
from clips4_slow import (
    DIM,
    HEIGHT,
    PHOTOS,
    WIDTH,
    classes_of,
    cut,
    semantic_of,
    slow_segments,
    some_pixels,
    some_regions,
    unit,
)
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.methods.clips4.classes import PrototypeClassifier
from maskfree.methods.clips4.objectives import (
    PseudoLabelObjective,
)
from maskfree.methods.clips4.view_segments import ViewSegments


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
    assert losses.metrics["same_class"].item() == pytest.approx(sum(agreed) / len(agreed))
    assert losses.metrics["known_share"].item() == pytest.approx(sum(known) / len(known))


def test_unknown_classes_move_to_their_segments_and_known_ones_stay():
    known, unknown = torch.eye(DIM)[:1], torch.eye(DIM)[1:2]
    classes = PrototypeClassifier(known, [1], unknown)
    seen = F.normalize(
        torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]), dim=0
    )  # between the unknown class and what has none
    teacher = seen.view(1, DIM, 1, 1).expand(2 * PHOTOS, DIM, HEIGHT, WIDTH)
    term, optimizer = semantic_of(classes), torch.optim.SGD([classes.unknown], lr=0.2)
    distances = []
    for _ in range(15):
        optimizer.zero_grad()
        losses = term(cut(some_pixels(), some_regions(), teacher), teacher)
        losses.total.backward()
        optimizer.step()
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
    assert set(losses.terms) == {"semantic"} and losses.metrics["known_share"] == 1
    assert not any(weight.requires_grad for weight in term.parameters())


def seen_in_a_corner() -> tuple[PrototypeClassifier, ViewSegments, Tensor]:
    """Class 0 is ahead of class 1 by a hair everywhere, but the second photo's first view has a
    corner of class 1.
    """
    first, second = torch.eye(DIM)[:2]
    teacher = (first + 0.99 * second).view(1, DIM, 1, 1).repeat(4, 1, HEIGHT, WIDTH)
    teacher[2, :, -2:, -3:] = second.view(DIM, 1, 1)
    teacher = F.normalize(teacher, dim=1)
    classes = PrototypeClassifier(torch.stack([first, second]), [1, 1], torch.zeros(0, DIM))
    return classes, cut(teacher, torch.zeros(4, HEIGHT, WIDTH, dtype=torch.long), teacher), teacher


def test_classes_that_the_teacher_sees_nowhere_in_a_photo_are_held_back():
    """In the photo with a corner of class 1 it wins in both views, also in the one that has no
    corner.
    """
    classes, segments, teacher = seen_in_a_corner()
    theirs = F.normalize(segments.teacher, dim=1)
    plain, held = (
        semantic_of(classes, class_prior=weight).eval()._scores(theirs, segments, teacher).argmax(1)
        for weight in (0.0, 5.0)
    )
    assert (plain[segments.views != 2] == 0).all() and 1 in plain[segments.views == 2]
    assert (held[segments.views < 2] == 0).all() and (held[segments.views == 3] == 1).all()


def test_in_training_a_class_that_is_held_back_keeps_its_share():
    classes, segments, teacher = seen_in_a_corner()
    theirs, term = F.normalize(segments.teacher, dim=1), semantic_of(classes, class_prior=5.0)
    held = term.eval()._scores(theirs, segments, teacher)  # both classes have the same share so far
    scores = term.train()._scores(theirs, segments, teacher)
    usual, before, after = (
        (20 * cosines).softmax(1).mean(0)
        for cosines in (classes.cosines(theirs[..., None, None])[..., 0, 0], held, scores)
    )
    assert_close(term.shares, torch.stack([usual, before]))
    assert (after - usual).abs().sum() < 0.8 * (before - usual).abs().sum()
    assert {"shares", "seen"} <= set(term.state_dict())


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_unknown_classes_get_their_share_of_the_segments(share):
    classes, segments = classes_of(1, 2), unit(200, DIM)
    classes.share_out(segments, share)
    winners = classes.cosines(segments[..., None, None])[..., 0, 0].argmax(1)
    assert (winners >= classes.num_known).float().mean().item() == pytest.approx(share, abs=0.02)


def test_pixel_labels_are_the_classes_of_the_nearest_phrases():
    pixels, teacher, phrases = some_pixels(), some_pixels(), unit(4, DIM)
    losses = PseudoLabelObjective(weight=2.0, scale=7.0, phrases=phrases, synonyms=(1, 2, 1))(
        pixels, teacher
    )

    def cosines(embedding: Tensor) -> Tensor:
        return torch.stack([(group @ embedding).max() for group in phrases.split((1, 2, 1))])

    expected, same = [], []
    for view, y, x in torch.cartesian_prod(
        *map(torch.arange, (2 * PHOTOS, HEIGHT, WIDTH))
    ).tolist():
        label = int(cosines(teacher[view, :, y, x]).argmax())
        logits = 7 * cosines(pixels[view, :, y, x])
        expected.append(-logits.log_softmax(0)[label])
        same.append(int(logits.argmax()) == label)
    assert_close(losses.terms["labels"], 2 * torch.stack(expected).mean())
    assert losses.metrics["same_class"].item() == pytest.approx(sum(same) / len(same))
