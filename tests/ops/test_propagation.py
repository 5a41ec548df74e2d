"""Label propagation: parity with DINO's code, and what it means."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.label_map import label_map
from maskfree.ops.propagation import CRW, LabelPropagation, propagate, stretch
from maskfree.ops.propagation_config import PropagationConfig
from shared_folder import SHARED

SETTINGS = SHARED / "fixtures" / "davis_label_propagation.json"
CASES = json.loads(SETTINGS.read_text())["hyper_parameters"]["cases"] if SETTINGS.exists() else []


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_parity_with_dino(case, fixture_tensors):
    tensors = fixture_tensors("davis_label_propagation")
    features = tensors[f"in.{case['name']}.features"].permute(0, 3, 1, 2)
    config = PropagationConfig(
        top_k=case["topk"], context=case["n_last_frames"], radius=case["radius"]
    )
    labels = LabelPropagation(config, features[0], tensors[f"in.{case['name']}.first_seg"][0])
    for index, frame in enumerate(features[1:]):
        soft = labels(frame)
        assert_close(soft, tensors[f"out.{case['name']}.soft_labels"][index], atol=1e-5, rtol=1e-3)
        finest = tuple(side * case["patch"] for side in case["grid"])
        ids, _ = label_map(stretch(soft, finest), size=finest, extent=case["grid"])
        ids = Image.fromarray(ids).resize(case["ori"][::-1], Image.Resampling.NEAREST)
        same = np.asarray(ids) == tensors[f"out.{case['name']}.label_maps"][index].numpy()
        assert same.mean() >= 0.999


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-3)


def by_definition(target, frames, labels, *, top_k, radius, temperature):
    """The same, cell by cell."""
    channels, height, width = labels.shape[1:]
    found = torch.zeros(channels, height, width)
    for y in range(height):
        for x in range(width):
            rows, columns = (
                slice(max(0, y - radius), y + radius + 1),
                slice(max(0, x - radius), x + radius + 1),
            )
            cosines = torch.einsum(
                "d,ndhw->nhw", target[:, y, x], frames[:, :, rows, columns]
            ).flatten()
            theirs = labels[:, :, rows, columns].permute(1, 0, 2, 3).flatten(1)
            best = cosines.topk(min(top_k, len(cosines)))
            found[:, y, x] = (
                theirs[:, best.indices]
                @ (best.values / temperature).exp()
                / ((best.values / temperature).exp().sum())
            )
    return found


@pytest.mark.parametrize("radius", [0, 2, 30])
def test_tiles_give_what_each_cell_gives_alone(radius):
    target, frames, labels = unit(6, 19, 35), unit(3, 6, 19, 35), torch.rand(3, 4, 19, 35)
    settings = {"top_k": 5, "radius": radius, "temperature": 0.2}
    assert_close(
        propagate(target, frames, labels, **settings),
        by_definition(target, frames, labels, **settings),
    )


def test_a_frame_like_the_first_keeps_its_labels_and_a_shift_moves_them():
    frame, labels = unit(64, 9, 13), torch.zeros(3, 9, 13)
    labels.scatter_(0, torch.randint(3, (1, 9, 13)), 1.0)
    settings = {"top_k": 1, "radius": 2, "temperature": 0.1}
    assert_close(propagate(frame, frame[None], labels[None], **settings), labels)
    moved = propagate(frame.roll((2, -1), (1, 2)), frame[None], labels[None], **settings)
    assert_close(moved[:, 2:, :-1], labels.roll((2, -1), (1, 2))[:, 2:, :-1])


def test_labels_that_sum_to_one_still_do():
    first = torch.rand(4, 7, 5).softmax(0)
    labels = LabelPropagation(PropagationConfig(top_k=3, context=2, radius=1), unit(6, 7, 5), first)
    for _ in range(4):
        soft = labels(unit(6, 7, 5))
        assert_close(soft.sum(0), torch.ones(7, 5))


def test_frames_of_one_color_take_the_mean_of_the_neighborhood():
    flat, labels = torch.ones(3, 5, 8), torch.rand(2, 5, 8)
    soft = LabelPropagation(PropagationConfig(top_k=2, radius=1), flat, labels)(flat)
    assert_close(soft[:, 2, 3], labels[:, 1:4, 2:5].mean((1, 2)))


def test_a_corrected_frame_is_where_it_begins_anew():
    frame = unit(6, 2, 3)
    labels = LabelPropagation(
        PropagationConfig(top_k=9, context=3, radius=0), frame, torch.full((1, 2, 3), 5.0)
    )
    assert_close(labels(frame), torch.full((1, 2, 3), 5.0))
    labels(frame)
    labels.correct(torch.full((1, 2, 3), 7.0))
    assert_close(labels(frame), torch.full((1, 2, 3), 7.0))
    assert_close(labels(-frame), torch.full((1, 2, 3), 7.0))


def test_without_context_only_the_known_frame_counts():
    frame = unit(6, 2, 3)
    labels = LabelPropagation(
        PropagationConfig(top_k=9, context=0, radius=0), frame, torch.full((1, 2, 3), 2.0)
    )
    labels(frame)
    labels.correct(torch.full((1, 2, 3), 4.0))
    assert_close(labels(frame), torch.full((1, 2, 3), 4.0))


def test_a_faded_object_still_wins_where_it_is_clearest():
    soft = torch.tensor(
        [[[0.98, 0.8, 1.0]], [[0.1, 0.2, 0.0]], [[0.0, 0.0, 0.0]], [[0.3, 0.3, 0.3]]]
    )
    stretched = stretch(soft, (1, 3))
    assert stretched[:3].argmax(0).tolist() == [[0, 1, 0]]
    assert_close(stretched[2:], soft[2:])  # absent, and the same everywhere
    enlarged = F.interpolate(stretch(soft, (4, 11))[None], (4, 11), mode="bilinear")[0]
    assert_close(
        enlarged[:2].aminmax(dim=2),
        torch.return_types.aminmax((torch.zeros(2, 4), torch.ones(2, 4))),
    )


def test_the_named_setting():
    assert PropagationConfig(top_k=10, context=20, radius=12, temperature=0.05) == CRW


@pytest.mark.parametrize(
    "wrong", [{"top_k": 0}, {"context": -1}, {"radius": -1}, {"temperature": 0.0}]
)
def test_settings_outside_their_ranges(wrong):
    with pytest.raises(ValueError, match=str(*wrong).partition("_")[0]):
        PropagationConfig(**wrong)


def test_cells_tied_with_the_last_one_count_too():
    generator = torch.Generator().manual_seed(1)
    few = F.normalize(torch.randn(3, 5, generator=generator), dim=1)
    numbers = torch.randint(3, (2, 15, 13), generator=generator)
    frames = few[numbers].movedim(-1, 1)  # each cell is one of three embeddings
    labels = torch.rand(2, 4, 15, 13, generator=generator)
    found = propagate(frames[0], frames, labels, top_k=5, radius=3, temperature=0.1)

    for y, x in ((0, 0), (7, 6), (14, 12), (3, 11)):
        rows, columns = slice(max(0, y - 3), y + 4), slice(max(0, x - 3), x + 4)
        near = frames[:, :, rows, columns].movedim(1, -1).flatten(0, 2)
        theirs = labels[:, :, rows, columns].movedim(1, -1).flatten(0, 2)
        cosines = near @ frames[0, :, y, x]
        counted = cosines >= cosines.topk(5).values[-1] - 1e-6
        assert counted.sum() > 5
        weights = (cosines[counted] / 0.1).softmax(0)
        assert_close(found[:, y, x], weights @ theirs[counted])
