"""Which of one set corresponds to which of another: assignments of the highest total similarity."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def match(similarity: Float[Tensor, "b k j"]) -> Int64[Tensor, "b k"]:
    """Return for each row of each problem its column, so that the sum of similarities is as large as can be.

    No two rows of a problem share a column. The batch goes to the host once and comes back once: there an exact solver
    takes about two microseconds for eight rows, less than launching anything on a device does. No gradient.

    Raises:
        ValueError: SIMILARITY is not finite, or has fewer columns than rows.

    Source: Kuhn 1955; the solver is SciPy's, Crouse 2016 (doi:10.1109/TAES.2016.140952).
    """
    from scipy.optimize import (
        linear_sum_assignment,
    )  # of the extra "train": inference does without it

    if similarity.shape[1] > similarity.shape[2]:
        raise ValueError(
            f"{similarity.shape[1]} rows and {similarity.shape[2]} columns: a row would have no column"
        )
    problems = similarity.detach().cpu().double().numpy()
    if not np.isfinite(problems).all():
        raise ValueError("the similarity to match by is not finite: every entry must be a number")
    columns = np.empty(problems.shape[:2], np.int64)
    for number, problem in enumerate(problems):
        columns[number] = linear_sum_assignment(problem, maximize=True)[1]
    return torch.from_numpy(columns).to(similarity.device)
