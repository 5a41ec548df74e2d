"""Entry point of `python -m maskfree`, which torchrun starts in each process."""

from __future__ import annotations

from maskfree.cli import main

if __name__ == "__main__":
    main()
