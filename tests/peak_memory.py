"""The peak of a process's resident memory, as Linux records it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
HERE = Path(__file__).parent


def peak_bytes() -> int:
    """The peak of this process; ru_maxrss would include that of the process it was forked from."""
    return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])


def peak_bytes_of(program: str) -> int:
    """The peak of a process of its own that runs the Python text PROGRAM."""
    measured = (
        f"import sys; sys.path.append({str(HERE)!r})\n"
        f"{program}\n"
        "from peak_memory import peak_bytes; print(peak_bytes())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", measured], capture_output=True, text=True, check=True
    )
    return int(ended.stdout.split()[-1])
