"""Matching a batch of masks in one call, against the usual loop that calls SciPy for each photo's
own slice.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from harness import RESULTS, Ratio, median_seconds, report
from maskfree.ops.matching import match


def one_by_one(similarity: Tensor) -> Tensor:
    """Match each problem on its own: its slice goes to the host, and its columns come back."""
    columns = [
        linear_sum_assignment(problem.cpu().numpy(), maximize=True)[1] for problem in similarity
    ]
    return torch.stack([torch.from_numpy(column).to(similarity.device) for column in columns])


def main(
    batches: tuple[int, ...] = (16, 64, 256),
    groups: tuple[int, ...] = (4, 8, 16),
    dim: int = 196,
    repeats: int = 15,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Match every batch both ways, on the CPU and on a GPU where one is at hand.

    Args:
        batches: Numbers of photos.
        groups: Numbers of masks of a photo.
        dim: Patches of a mask.
        repeats: Rounds to take the median of.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    seconds: dict[str, float] = {}
    ratios = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for number in batches:
            for count in groups:
                # Cosines of noisy copies in another order, as masks of one entity in two photos
                # are.
                masks = torch.rand(number, count, dim)
                others = (masks + torch.rand_like(masks))[:, torch.randperm(count)]
                unit, other = (
                    torch.nn.functional.normalize(masks, dim=2),
                    torch.nn.functional.normalize(others, dim=2),
                )
                similarity = (unit @ other.mT).to(device)
                if not torch.equal(match(similarity), one_by_one(similarity)):
                    raise RuntimeError(f"{number} x {count} on {device}: the two ways disagree")
                name = f"{number} photos, {count} masks, {device}"
                taken = median_seconds(
                    {
                        "one call": lambda s=similarity: match(s),
                        "loop": lambda s=similarity: one_by_one(s),
                    },
                    repeats,
                )
                seconds |= {f"{way}: {name}": value for way, value in taken.items()}
                ratios.append(
                    Ratio(
                        f"loop over one call, {name}",
                        taken["loop"] / taken["one call"],
                        "at least 1",
                    )
                )
    settings = {"batches": list(batches), "groups": list(groups), "dim": dim, "repeats": repeats}
    report("matching", seconds, ratios, settings, results)


if __name__ == "__main__":
    tyro.cli(main)
