"""A CLIP ViT-B/16 read densely, in each runtime and number format: time and labels of patches.

Without published weights they are random: labels then are directions between which the patches of
photos lie, about as close as those of random words. One step of a photo is its image side and the
comparison with the words.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from harness import PLAIN, RESULTS, Ratio, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.photo import read_photo
from maskfree.inference.runtimes.export import export
from maskfree.inference.runtimes.sessions import (
    OnnxSession,
    OpenVinoBf16Session,
    OpenVinoSession,
    Session,
)
from maskfree.method import Method
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.published import maskclip_config
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.linear import use_onednn

EXACT, HALVED = "torch", "torch bf16"
SESSIONS: dict[str, type[Session]] = {
    "onnx": OnnxSession,
    "openvino": OpenVinoSession,
    "openvino-bf16": OpenVinoBf16Session,
}
FASTEST = "openvino-bf16"
Step = Callable[[Tensor], Int[Tensor, " n"]]


def main(
    data: Path = Path("../shared/data"),
    weights: str = "",
    side: int = 448,
    num_words: int = 20,
    every: int = 8,
    seed: int = 0,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Label the patches of photos of coco-mini.

    Args:
        data: Folder with coco-mini.
        weights: Folder or Hugging Face name of a CLIP; random weights of a ViT-B/16 if empty.
        side: Both sides of the photos in pixels.
        num_words: Number of words, that is of text embeddings.
        every: Take every so many photos.
        seed: Seed of weights and words.
        threads: Threads of torch and of the runtimes.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    method = config_of(weights).build().eval()
    plain = deepcopy(method)
    use_onednn(method)  # as `loading.load` does, where that is faster
    samples = benchmark("coco-mini", data).samples(data)[::every]
    photos = [photo_of(sample.photo, side) for sample in samples]
    with torch.inference_mode(), TemporaryDirectory() as folder:
        words = method.read_words(directions(method, photos, num_words))
        path = Path(folder) / "clip.onnx"
        export(method, path, {})
        steps = steps_of(plain, method, words, path, (side, side))
        cpu, wall, labels = in_turn(steps, photos)

    rows = []
    for name in steps:
        equal = [
            float((labels[name][i] == labels[PLAIN][i]).float().mean()) for i in range(len(photos))
        ]
        rows.append(
            {
                "runtime": name,
                "cpu_seconds": cpu[name],
                "wall_seconds": wall[name],
                "patch_labels_equal": float(np.mean(equal)),
                "least_of_a_photo": min(equal),
                "labels_used": len(torch.cat(labels[name]).unique()),
            }
        )

    ratios = []
    for name in steps:
        if name != PLAIN:
            targets = ("at least 4", "at least 99.5") if name == FASTEST else ("", "")
            same = next(row for row in rows if row["runtime"] == name)["patch_labels_equal"]
            ratios += [
                Ratio(f"{PLAIN} over {name}", cpu[PLAIN] / cpu[name], targets[0]),
                Ratio(f"{PLAIN} over {name}, wall clock", wall[PLAIN] / wall[name]),
                Ratio(f"labels of patches equal to its, {name}", 100 * same, targets[1], "%"),
            ]
    settings = {
        "weights": weights or "random",
        "words": f"{num_words} directions between patches of photos",
        "side": side,
        "photos": len(photos),
        "seed": seed,
        "clock": "CPU seconds",
    }
    report("dense-clip", cpu, ratios, settings, results, rows)


def config_of(weights: str) -> MaskCLIPConfig:
    """Config of a CLIP, or of a ViT-B/16 with random weights."""
    if weights:
        return maskclip_config(weights)
    return MaskCLIPConfig(
        image=DenseClipConfig(architecture={"patch_size": 16, "projection_dim": 512}),
        text=TextEncoderConfig("clip", frozen=True),
    )


def photo_of(path: Path, side: int) -> Float[Tensor, "1 3 h w"]:
    """A photo as a square image of the network."""
    photo = np.asarray(read_photo(path).resize((side, side)), np.float32)
    return torch.from_numpy(photo / 255).movedim(2, 0)[None].contiguous()


def directions(method: Method, photos: list[Tensor], count: int) -> Float[Tensor, "k d"]:
    """Unit-norm differences of random patches and the mean one: random networks differ in these."""
    patches = torch.cat([method.look(photo)[0][0].flatten(1).T for photo in photos[:4]])
    chosen = patches[torch.randperm(len(patches))[:count]]
    return F.normalize(chosen - patches.mean(0), dim=1)


def steps_of(
    plain: Method, method: Method, words: tuple[Tensor, ...], path: Path, size: tuple[int, int]
) -> dict[str, Step]:
    """One way to label the patches of a photo for each runtime and number format."""

    def labels(seen: tuple[Tensor, ...]) -> Int[Tensor, " n"]:
        return (
            method.compare(tuple(map(torch.Tensor.float, seen)), words, size)[0].argmax(0).flatten()
        )

    def halved(photo: Tensor) -> Int[Tensor, " n"]:
        with torch.autocast("cpu", torch.bfloat16):
            seen = method.look(photo)
        return labels(seen)

    steps: dict[str, Step] = {
        PLAIN: lambda photo: labels(plain.look(photo)),
        EXACT: lambda photo: labels(method.look(photo)),
        HALVED: halved,
    }
    sessions = {name: kind(path) for name, kind in SESSIONS.items()}
    for name, session in sessions.items():
        steps[name] = lambda photo, session=session: labels(session(photo))
    return steps


def in_turn(
    steps: dict[str, Step], photos: list[Tensor]
) -> tuple[dict[str, float], dict[str, float], dict[str, list[Tensor]]]:
    """Median CPU seconds and seconds of the wall clock a photo, and the labels, of each way."""
    for step in steps.values():
        step(photos[0])  # opens the network

    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    labels: dict[str, list[Tensor]] = {name: [] for name in steps}
    for photo in photos:
        for name, step in steps.items():
            begin, start = time.perf_counter(), time.process_time()
            labels[name].append(step(photo))
            cpu[name].append(time.process_time() - start)
            wall[name].append(time.perf_counter() - begin)

    medians = [
        {name: float(np.median(each)) for name, each in taken.items()} for taken in (cpu, wall)
    ]
    return medians[0], medians[1], labels


if __name__ == "__main__":
    tyro.cli(main)
