"""Where the windows that cover a length start."""

from __future__ import annotations


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Cover a length with windows, the last one shifted back to the border.

    Args:
        length: Length to cover.
        window: Length of a window; one longer than `length` starts at 0.
        stride: Distance of neighboring starts, at most `window`.

    Returns:
        Starts in ascending order.
    """
    return [*range(0, length - window, stride), max(0, length - window)]
