"""Eq. 2 as printed makes every photo say the same; the working form does not."""

from __future__ import annotations

import pytest
import torch
from test_vilseg import ColorEncoder
from torch import nn

from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ViLSegConfig, VisionConfig
from tiny import tiny_vilseg_config


def colored_photos(seed: int, size: int = 24, views: int = 3) -> ViLSegBatch:
    """Photos of one color each with grainy patches, and crops of them."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(size, 1, 3, 1, 1, generator=generator)

    def patches(number: int, rows: int, columns: int) -> torch.Tensor:
        grain = 0.15 * torch.randn(size, number, 3, rows, columns, generator=generator)
        return (colors + grain).clamp(0, 1).repeat_interleave(16, -2).repeat_interleave(16, -1)

    return ViLSegBatch(
        images=patches(1, 3, 5)[:, 0],
        local_views=patches(views, 1, 2),
    )


def metrics_after_training(config: ViLSegConfig, steps: int) -> tuple[float, float]:
    """Entropy of one photo's answer, and of the mean answer over photos, after L_vision alone."""
    method = config.build()
    method.image.encoder = ColorEncoder()
    method.image.projection = nn.Sequential(
        nn.Conv2d(4, 32, 1), nn.GELU(), nn.Conv2d(32, config.embed_dim, 1)
    )
    method.vision = config.vision.build(method.image, config.embed_dim)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        losses = method(colored_photos(step))
        losses.total.backward()
        optimizer.step()
        method.after_step(step, steps)
    return float(losses.metrics["vision_entropy"]), float(losses.metrics["vision_mean_entropy"])


@pytest.mark.parametrize("mode", ["literal", "distillation"])
def test_only_the_literal_form_collapses(mode):
    vision = VisionConfig(
        mode=mode, out_dim=14, num_local_views=3, local_side_px=32, teacher_momentum=0.99
    )
    config = tiny_vilseg_config(vision=vision, cluster=None, grouping="pixels")
    one, all_together = metrics_after_training(config, steps=200)
    if mode == "literal":
        assert all_together < 0.05
    else:
        assert all_together > 2.0  # of log 14 = 2.64 nats
        assert all_together - one > 0.15  # what the answer tells about the photo
