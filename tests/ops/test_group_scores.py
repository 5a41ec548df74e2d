"""The product of softmaxes: parity with the published code, and what it means."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.group_scores import product_scores
from maskfree.types import Groups
from published_scores import check_scores
from shared_folder import SHARED

FIXTURE = SHARED / "fixtures" / "ovsegmentor_segmentation"
SETTINGS = FIXTURE.with_suffix(".json")
CASES = json.loads(SETTINGS.read_text())["hyper_parameters"]["cases"] if SETTINGS.exists() else []


@pytest.mark.skipif(not CASES, reason="../shared/fixtures is not here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_scores_and_labels_equal_the_published_code(case):
    tensors = load_file(FIXTURE.with_suffix(".safetensors"))
    check_scores(case, tensors, lambda given: given["attn_soft0"][:, 0])


def groups_of(embeddings, patches, assignment=None):
    unit = F.normalize(embeddings, dim=-1)
    return Groups(unit, assignment, F.normalize(unit.mean(1), dim=-1), patches)


def test_patches_that_are_their_own_groups_own_their_pixels():
    torch.manual_seed(0)
    groups = groups_of(torch.randn(2, 3 * 5, 7), (3, 5))
    classes = F.normalize(torch.randn(4, 7), dim=-1)
    settings = {"logit_scale": 5.0, "top_classes": 2, "threshold": None, "size": (6, 10)}
    scores = product_scores(groups, classes, **settings)
    assert scores.shape == (2, 4, 6, 10)
    assert_close(scores[:, :, ::2, ::2], scores[:, :, 1::2, 1::2])
    one_hot = torch.eye(15).view(1, 15, 3, 5).expand(2, -1, -1, -1)
    assert_close(
        product_scores(groups_of(groups.embeddings, (3, 5), one_hot), classes, **settings), scores
    )


def test_classes_that_the_crop_is_far_from_cannot_win():
    torch.manual_seed(0)
    groups = groups_of(torch.randn(1, 15, 7), (3, 5))
    classes = F.normalize(torch.randn(6, 7), dim=-1)
    scores = product_scores(
        groups, classes, logit_scale=5.0, top_classes=2, threshold=None, size=(3, 5)
    )
    near = (groups.overall @ classes.T)[0].topk(2).indices
    assert set(scores[0].amax((1, 2)).nonzero()[:, 0].tolist()) == set(near.tolist())


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_best_group_is_never_background(threshold):
    torch.manual_seed(0)
    groups = groups_of(torch.randn(1, 15, 7), (3, 5))
    classes = F.normalize(torch.randn(6, 7), dim=-1)
    scores = product_scores(
        groups, classes, logit_scale=5.0, top_classes=5, threshold=threshold, size=(3, 5)
    )[0]
    assert (scores[-1] == 0).sum() == (15 if threshold == 0 else 1)
