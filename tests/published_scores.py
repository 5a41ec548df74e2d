"""What the published inference of GroupViT and OVSegmentor made of one crop, against ours."""

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.group_scores import product_scores
from maskfree.types import Groups


def check_scores(case, tensors, assignment_of):
    """Compare scores and labels of a fixture's CASE.

    ASSIGNMENT_OF takes its inputs to soft maps b g n.
    """
    given, wanted = (
        {
            k.split(".", 2)[2]: v
            for k, v in tensors.items()
            if k.startswith(f"{side}.{case['name']}.")
        }
        for side in ("in", "out")
    )
    height, width = case["H"], case["W"]
    patches = (height // case["patch"], width // case["patch"])
    groups = Groups(
        embeddings=F.normalize(given["group_features"], dim=-1),
        assignment=assignment_of(given).unflatten(2, patches),
        overall=F.normalize(given["image_feature"], dim=-1),
        patches=patches,
    )
    scores = product_scores(
        groups,
        given["text_embedding"],
        logit_scale=float(given["logit_scale"].exp()),
        threshold=case["bg_thresh"] if case["with_bg"] else None,
        size=(height, width),
    )[0]
    ours = (
        scores.roll(1, 0) if case["with_bg"] else scores
    )  # the published code has the background first
    assert_close(ours, wanted["pred_logits"], atol=1e-5, rtol=1e-4)
    assert torch.equal(ours.argmax(0), wanted["label_map"])
