"""Class-free segmentation: some classes are unknown during training, all are evaluated.

Source: CLIP-S4 (CVPR 2023), section 4.3 and Table 3. The paper does not define its folds; here a
fold is a run of neighboring classes of the class list, as in PASCAL-5i (arXiv:1709.03410).
"""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.benchmarks.catalog import Benchmark


def unknown_classes(benchmark: Benchmark, fold: int, num_folds: int = 4) -> tuple[str, ...]:
    """Return the classes of a benchmark that are unknown in a fold.

    Args:
        benchmark: Benchmark whose classes are split into folds.
        fold: Number of the fold, from 0.
        num_folds: Number of folds; together they hold all classes.

    Returns:
        Names of the unknown classes, in the order of the class list.

    Raises:
        ValueError: There is no such fold, or a fold would have no class.
    """
    names = [line.split("/")[0] for line in benchmark.words()]
    if not 1 <= num_folds <= len(names):
        raise ValueError(
            f"{num_folds} folds of {len(names)} classes: each fold has a class at least"
        )

    if not 0 <= fold < num_folds:
        raise ValueError(f"fold {fold}: there are folds 0 to {num_folds - 1}")

    # Rounding spreads the remainder when folds differ in size.
    first, last = (round(len(names) * at / num_folds) for at in (fold, fold + 1))
    return tuple(names[first:last])


def with_unknown(benchmark: Benchmark, unknown: tuple[str, ...]) -> Benchmark:
    """Mark classes of a benchmark as unseen.

    The parts of a results row are then the means over unknown and known classes.

    Args:
        benchmark: Benchmark to change.
        unknown: Names of the unseen classes.

    Returns:
        The benchmark with these unseen classes.

    Raises:
        ValueError: A name is not a class of the benchmark.
    """
    if surplus := sorted(set(unknown).difference(benchmark.words())):
        raise ValueError(f"{surplus[0]!r} is no class of {benchmark.name}")
    return replace(benchmark, unseen=unknown)
