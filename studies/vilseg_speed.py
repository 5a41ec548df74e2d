"""Parameters and speed of ViL-Seg's image side, as in Table 2 of the paper (arXiv:2207.08455)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.config.rules import Grouping
from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.dual_encoder import ImageProjector
from maskfree.nn.pixel_groups import group_pixels
from maskfree.recipes import vilseg_pocket
from studies.options import ViLSegOptions

KIND = "reproduce-speed"
COMMAND = "python -m studies vilseg --data ../shared/data --part speed"
VIT, MOBILE = "ViT-B/16, as the paper's", "MobileNetV2, as `pocket`'s"
GROUPINGS: Mapping[str, Grouping] = {
    "ViL-Seg": "clusters",
    "K-means": "kmeans",
    "per pixel": "pixels",
}
SIDES_PX = (448, 576)  # a photo of 3:4 at the default shorter side
NUM_CLASSES = 20  # of VOC
ROUNDS = 7


def speed(options: ViLSegOptions) -> None:
    """Count and time each image side with each grouping, and write the rows."""
    rows = []
    for name, config in configs().items():
        image, head = image_side(config)
        times = interleaved(image, head, torch.rand(1, 3, *SIDES_PX))
        for variant, grouping in GROUPINGS.items():
            parts = (image, head) if grouping == "clusters" else (image,)
            count = sum(p.numel() for part in parts for p in part.parameters())
            rate = 1 / statistics.median(times[variant])
            rows.append({"encoder": name, "variant": variant, "parameters": count, "rate": rate})
    head = {"format": FORMAT, "kind": KIND, "command": COMMAND, "side_px": SIDES_PX}
    about = {"versions": versions(), "machine": machine(torch.get_num_threads())}
    write_json(head | about | {"rows": rows}, options.results / f"{KIND}.json")


def configs() -> dict[str, ViLSegConfig]:
    """Return the paper's method and the bundled model's; random weights are as fast as others."""
    pocket = vilseg_pocket().method
    assert isinstance(pocket, ViLSegConfig)
    image = replace(pocket.image, weights=None)
    return {VIT: ViLSegConfig(), MOBILE: replace(pocket, image=image)}


def image_side(config: ViLSegConfig) -> tuple[ImageProjector, ClusterHead]:
    """Build what turns a photo into clusters: encoder, projection and head, without texts."""
    encoder, dim = config.image.build(), config.embed_dim
    projection = config.image_projection.build_for_pixels(encoder.channels, dim)
    assert config.cluster is not None
    head = ClusterHead(
        dim=dim,
        num_clusters=config.cluster.num_clusters,
        standardized=config.cluster.standardized,
    )
    # Random heads see one cluster everywhere, which is as much work.
    return ImageProjector(encoder, projection).eval(), head.eval()


@torch.inference_mode()
def interleaved(
    image: nn.Module, head: ClusterHead, photo: Float[Tensor, "1 3 h w"]
) -> dict[str, list[float]]:
    """Time each grouping in turn, round by round, so that a busy machine slows all alike.

    Seconds of processor time from the photo to the scores of the classes.
    """
    dim = head.convolution.in_channels
    classes = F.normalize(torch.randn(NUM_CLASSES, dim), dim=1)
    times: dict[str, list[float]] = {variant: [] for variant in GROUPINGS}
    for round_number in range(ROUNDS + 1):
        for variant, grouping in GROUPINGS.items():
            start = time.process_time()
            groups = group_pixels(image(photo), grouping, head)
            groups.spread(groups.embeddings @ classes.T).argmax(1)
            # The first round warms up.
            if round_number:
                times[variant].append(time.process_time() - start)
    return times


def shown(rows: list[dict[str, Any]], encoder: str, variant: str) -> tuple[str, str]:
    """Return parameters in millions and photos a second of a row, as text."""
    for row in rows:
        if (row["encoder"], row["variant"]) == (encoder, variant):
            return f"{row['parameters'] / 1e6:.2f}", f"{row['rate']:.2f}"
    return "–", "–"
