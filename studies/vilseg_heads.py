"""The online head of ViL-Seg against K-means (arXiv:2207.08455, Table 2), and what keeps it back.

On frozen embeddings, patch by patch: a head is trained in seconds, so it can be trained longer and
from other starts. Patches are compared with the truth at their centers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, benchmark
from maskfree.data.order import seed_of
from maskfree.data.photo import read_photo
from maskfree.engine.config import Recipe
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.protocol import prepare
from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json
from maskfree.hub import loading
from maskfree.hub.catalog import model_folder
from maskfree.inference.photos import fit_to_patches, to_images
from maskfree.inference.segmenter import Segmenter
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.metrics import scores
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.pixel_groups import likeliest
from maskfree.ops.ignore import IGNORE
from maskfree.ops.kmeans import kmeans
from studies.ledger import bare
from studies.options import ViLSegOptions
from studies.vilseg_study import HEAD_RATE, Study

KIND = "reproduce-heads"
COMMAND = "python -m studies vilseg --data ../shared/data --part heads --head-photos 64"
BENCHMARKS = ("coco-mini", "camvid")
NUM_CLUSTERS = 20
SIDE_PX = 384
EVERY = 3  # photos of a benchmark
PIXELS_PER_STEP = (16, 8, 8)  # in the shape of a batch of maps

Assign = Callable[[Float[Tensor, "1 d h w"]], Float[Tensor, "1 g h w"]]


@dataclass(frozen=True)
class Start:
    """How a head begins and is trained; the defaults are those of the study."""

    steps: int = 500
    centroids: bool = False
    """Begin as the nearest centroid of K-means over the training pixels."""
    sharpness: float = 1.0
    """Factor on the initial weights: the inverse of a temperature."""
    balance: float = 1.0
    """Weight of the entropy of the clusters; above 1, equal clusters are favored."""


HEADS = {
    "head, 500 steps": Start(),
    "head, 2000 steps": Start(steps=2000),
    "head, sharper start": Start(sharpness=5.0),
    "head, entropy of the clusters 1.5 times": Start(balance=1.5),
    "head that starts as K-means of all photos": Start(centroids=True),
    "K-means of all photos, 20 clusters": Start(steps=0, centroids=True),
}
ALONE, OFFLINE, MATCHED = (
    "per pixel",
    "K-means of each photo, 20 clusters",
    "K-means of each photo, as many clusters as the head uses there",
)
VARIANTS = (ALONE, OFFLINE, MATCHED, *HEADS)


@dataclass(frozen=True)
class Patches:
    """Embeddings of a photo's patches, and the true class at their centers."""

    pixels: Float[Tensor, "1 d h w"]
    truth: Int[np.ndarray, "h w"]


def compare(options: ViLSegOptions, recipe: Recipe) -> None:
    """Compare heads with K-means on the embeddings of one model, and write the rows."""
    name = options.model or "pocket"
    segmenter = loading.load(name, "cpu")
    sets = {each: embedded(segmenter, each, options) for each in BENCHMARKS}
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        study = Study(seeded, options.out / f"heads-seed{seed}", options.head_photos, 0)
        pairs = study.pairs(model_folder(name))
        heads = {each: trained(start, *pairs, seed) for each, start in HEADS.items()}
        for variant, assign in assigned(heads, alone=seed == options.seeds[0]):
            for each, (patches, classes) in sets.items():
                found = compared(patches, classes, assign)
                rows.append({"seed": seed, "variant": variant, "measure": each} | found)
        write_json(_file(name, rows), options.results / f"{KIND}.json")


def _file(model: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    head = {"format": FORMAT, "kind": KIND, "command": COMMAND, "model": model}
    about = {"versions": versions(), "machine": machine(torch.get_num_threads())}
    return head | about | {"rows": rows}


def assigned(heads: dict[str, ClusterHead], alone: bool) -> Iterator[tuple[str, Assign | None]]:
    """List what groups pixels; what has no seed of its own only if ALONE."""
    if alone:
        yield ALONE, None
        yield OFFLINE, by_kmeans
    first = next(iter(heads.values()))
    yield MATCHED, lambda pixels: by_kmeans(pixels, used(likeliest(first(pixels))))
    for name, head in heads.items():
        yield name, partial(_by_head, head)


def _by_head(head: ClusterHead, pixels: Float[Tensor, "1 d h w"]) -> Float[Tensor, "1 g h w"]:
    return likeliest(head(pixels))


def by_kmeans(pixels: Float[Tensor, "1 d h w"], count: int = NUM_CLUSTERS) -> Tensor:
    """Assign each pixel to one of COUNT clusters of its photo."""
    labels, centroids = kmeans(pixels.flatten(2).mT, count)
    return F.one_hot(labels, centroids.shape[1]).mT.unflatten(2, pixels.shape[-2:]).float()


def used(members: Float[Tensor, "1 g h w"]) -> int:
    """Count the groups that have a pixel."""
    return int((members.sum((0, 2, 3)) > 0).sum())


@torch.inference_mode()
def embedded(
    segmenter: Segmenter, name: str, options: ViLSegOptions
) -> tuple[list[Patches], Float[Tensor, "k d"]]:
    """Embed the photos of a benchmark without its tag scores, and its class names."""
    chosen, method = benchmark(name), segmenter.method
    assert isinstance(method, ViLSeg)
    protocol = replace(bare(side_px=SIDE_PX), templates="photo")
    prepared = prepare(segmenter, chosen, protocol)
    lookup, _ = truth_lookup(chosen, protocol)
    patches = []
    for sample in chosen.samples(options.data)[::EVERY]:
        padded = fit_to_patches(read_photo(sample.photo), prepared.inference, method.patch_size)
        pixels = method.image(to_images([padded], segmenter.device)).float().contiguous()
        patches.append(Patches(pixels.clone(), centers(sample, lookup, prepared, pixels)))
    assert prepared.embeddings is not None
    return patches, prepared.embeddings.clone()


def centers(
    sample: AnnotatedPhoto, lookup: np.ndarray, segmenter: Segmenter, pixels: Tensor
) -> Int[np.ndarray, "h w"]:
    """Return the true class at the center of each patch; padding is ignored."""
    truth = lookup[sample.read_truth()]
    resized = segmenter.inference.resized(*truth.shape)
    found = np.full(pixels.shape[-2:], IGNORE, np.int64)
    places = []
    for count, size, whole in zip(found.shape, resized, truth.shape, strict=True):
        middle = (np.arange(count) + 0.5) * segmenter.method.patch_size
        places.append((middle[middle < size] * whole / size).astype(int))
    found[: len(places[0]), : len(places[1])] = truth[np.ix_(*places)]
    return found


def trained(
    start: Start, first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], seed: int
) -> ClusterHead:
    """Train a standardized head on pairs of pixel embeddings."""
    torch.manual_seed(seed_of(seed, "head"))
    head = ClusterHead(dim=first.shape[1], num_clusters=NUM_CLUSTERS, standardized=True)
    head.observe(first.float().mT[None, :, :, None], lambda tensor: tensor)
    _begin(head, start, first, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_RATE, weight_decay=1e-3)
    for _ in range(start.steps):
        chosen = torch.randint(len(first), PIXELS_PER_STEP)
        one, other = (head(side[chosen].movedim(-1, 1).float()) for side in (first, second))
        negative_mutual_information(co_occurrence(one, other), start.balance).backward()
        optimizer.step()
        optimizer.zero_grad()
    return head.requires_grad_(False).eval()


@torch.no_grad()
def _begin(head: ClusterHead, start: Start, pixels: Float[Tensor, "n d"], seed: int) -> None:
    weight, bias = head.convolution.weight, head.convolution.bias
    assert bias is not None
    weight *= start.sharpness
    if start.centroids:
        seen = head.standardize(pixels.float().mT[None, :, :, None])[0, :, :, 0].mT
        _, found = kmeans(seen[None], NUM_CLUSTERS, seed=seed)
        # The softmax of these is that of minus half the squared distances.
        weight.copy_(found[0][:, :, None, None])
        bias.copy_(-found[0].square().sum(1) / 2)


@torch.inference_mode()
def compared(
    patches: Sequence[Patches], classes: Float[Tensor, "k d"], assign: Assign | None
) -> dict[str, float]:
    """Measure mIoU, the accuracy if each region were named by its truth, and regions a photo."""
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    right, counts = 0, []
    for photo in patches:
        members = _members(photo.pixels, assign)
        counts.append(used(members))
        regions = F.normalize(members.flatten(2) @ photo.pixels.flatten(2).mT, dim=-1)
        named = (regions[0] @ classes.T).argmax(1)
        groups = members[0].argmax(0).numpy()
        known = photo.truth != IGNORE
        np.add.at(matrix, (photo.truth[known], named.numpy()[groups[known]]), 1)
        table = np.zeros((members.shape[1], len(classes)), np.int64)
        np.add.at(table, (groups[known], photo.truth[known]), 1)
        right += int(table.max(1).sum())
    return {
        "mean_iou": float(scores(matrix).mean_iou),
        "named_by_truth": right / int(matrix.sum()),
        "regions": statistics.mean(counts),
    }


def _members(pixels: Float[Tensor, "1 d h w"], assign: Assign | None) -> Tensor:
    if assign is not None:
        return assign(pixels)
    count = pixels.shape[2] * pixels.shape[3]
    return torch.eye(count).unflatten(1, pixels.shape[-2:])[None]
