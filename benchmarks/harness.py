"""What every benchmark shares: fair timing of several candidates in one run, and one results file
with its provenance.

The scripts lie beside each other and import this file by its name:
`python benchmarks/inference.py`.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

import maskfree
from maskfree.evaluation.reporting.results import FORMAT, machine, versions, write_json
from maskfree.inference.segmenter import Segmenter
from maskfree.ops import onednn

RESULTS = Path("results")


@dataclass(frozen=True)
class Ratio:
    """One measured time over another of the same run, and what it should be ("at most 1.35", "at
    least 2").
    """

    name: str
    value: float
    target: str = ""
    unit: str = "x"  # times, or s for a time that is itself the figure

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if not self.target:
            return None
        bound = float(self.target.split()[-1])
        return self.value <= bound if self.target.startswith("at most") else self.value >= bound


PLAIN = "torch with MKL"
"""Name of torch as it is, where this project lets another library multiply matrices."""


def load_plain(model: str) -> Segmenter:
    """Load a model whose layers multiply matrices as torch does by itself."""
    with mock.patch.object(onednn, "is_faster", lambda: False):
        return maskfree.load(model, "cpu")


def median_seconds(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    warm_up: int = 2,
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Run the candidates in turn, REPEATS rounds after WARM_UP, and return each one's median.

    Taking turns makes a noise of the machine hit all of them alike; the median drops what hits one
    alone. The clock `time.process_time` counts CPU seconds, which other processes disturb least.
    """
    clock = clock or time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for done in range(warm_up + repeats):
        for name, run in candidates.items():
            start = clock()
            run()
            if done >= warm_up:
                times[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def report(
    name: str,
    seconds: Mapping[str, float],
    ratios: list[Ratio],
    settings: Mapping[str, Any],
    folder: Path = RESULTS,
    rows: list[dict[str, Any]] | None = None,
) -> Path:
    """Print times and ratios, and write them to FOLDER/benchmark-NAME.json with all that they
    depend on.
    """
    table = Table(
        "measured", "milliseconds", title=f"benchmark {name}, {torch.get_num_threads()} thread(s)"
    )
    for key, value in seconds.items():
        table.add_row(key, f"{1000 * value:.1f}")
    for ratio in ratios:
        verdict = {None: "", True: " [green]met[/]", False: " [red]missed[/]"}[ratio.met]
        table.add_row(
            f"[bold]{ratio.name}[/]", f"{ratio.value:.2f} {ratio.unit} {ratio.target}{verdict}"
        )
    console = Console()
    console.print(table)
    content = {
        "format": FORMAT,
        "benchmark": name,
        "seconds": dict(seconds),
        "ratios": [{**asdict(ratio), "met": ratio.met} for ratio in ratios],
        "rows": rows or [],
        "settings": dict(settings),
        "command": command_line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(torch.get_num_threads()),
    }
    path = write_json(content, folder / f"benchmark-{name}.json")
    console.print(f"written to {path}")
    return path


def command_line() -> str:
    """Return the command as typed from the repository's root."""
    script = Path(sys.argv[0])
    return shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])


def cpu_has_amx() -> bool:
    """Whether the processor has matrix tiles, on which oneDNN computes "medium" fp32 products in
    bf16.
    """
    try:
        return " amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def resident_bytes(field: str) -> int:
    """Resident memory of this process, as Linux records it.

    Args:
        field: "VmRSS" for the present size, "VmHWM" for its peak; `ru_maxrss` would begin at that
            of the process that started this one.

    Returns:
        The size in bytes.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])
