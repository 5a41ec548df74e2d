"""Class-free segmentation: some classes are unknown while a model learns, all of them are asked for afterwards.

Source: CLIP-S4 (CVPR 2023), section 4.3 and Table 3. Which classes are a fold the paper does not say: here they are
neighbours in the class list, as in PASCAL-5i (arXiv:1709.03410).
"""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.benchmarks.catalog import Benchmark


def unknown_classes(benchmark: Benchmark, fold: int, num_folds: int = 4) -> tuple[str, ...]:
    """Return the classes of BENCHMARK that are unknown in FOLD, from 0; all folds together are all classes.

    Raises:
        ValueError: there is no such fold, or a fold would have no class.
    """
    names = [line.split("/")[0] for line in benchmark.words()]
    if not 1 <= num_folds <= len(names):
        raise ValueError(
            f"{num_folds} folds of {len(names)} classes: each fold has a class at least"
        )
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold {fold}: there are folds 0 to {num_folds - 1}")
    first, last = (round(len(names) * at / num_folds) for at in (fold, fold + 1))
    return tuple(names[first:last])


def with_unknown(benchmark: Benchmark, unknown: tuple[str, ...]) -> Benchmark:
    """Return BENCHMARK with these unseen classes: a row's parts are then the means over unknown and known classes.

    Raises:
        ValueError: one of them is no class of it.
    """
    if surplus := sorted(set(unknown).difference(benchmark.words())):
        raise ValueError(f"{surplus[0]!r} is no class of {benchmark.name}")
    return replace(benchmark, unseen=unknown)
