"""`python -m maskfree`, the same as `maskfree`; torchrun starts it in each process by `-m maskfree`."""

from __future__ import annotations

from maskfree.cli import main

if __name__ == "__main__":
    main()
