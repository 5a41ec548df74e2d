"""Two torchrun calls on this machine as two nodes, started by hand and by the Slurm script."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskfree.engine import run_state
from stopping import losses
from tiny_benchmark import write_benchmark

SCRIPT = Path(__file__).parents[1] / "examples" / "train.slurm"
SETTINGS = (
    *("--data.shapes", "16", "--data.workers", "0", "--train.batch-size", "8"),
    *("--train.save-every", "2", "--train.log-every", "1", "--train.accelerator", "cpu"),
)
# Fakes of a cluster: two machines, and a launcher that starts a task on each.
SCONTROL = '#!/bin/bash\n[ "$3" = "fake[1-2]" ] && printf "localhost\\nlocalhost\\n"\n'
SRUN = '#!/bin/bash\n"$@" & first=$!\n"$@" & second=$!\nwait $first && wait $second\n'
PROGRAM = '#!/bin/bash\nexec {python} -m {module} "$@"\n'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that has the commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = {
        "scontrol": SCONTROL,
        "srun": SRUN,
        "torchrun": PROGRAM.format(python=sys.executable, module="torch.distributed.run"),
        "maskfree": PROGRAM.format(python=sys.executable, module="maskfree"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **piped)


def finished(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said[-3000:]


def test_two_nodes_train_what_two_processes_of_one_do(tmp_path, programs):
    root = write_benchmark(tmp_path / "coco")
    options = ["--validation.benchmark", "coco-mini", str(root), "--validation.every", "2"]
    train = ["--no-python", "maskfree", "train", "vilseg_debug", *SETTINGS, *options]
    steps = ["--train.steps", "4", "--out"]

    nodes = ["torchrun", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    nodes += ["--rdzv-endpoint", f"localhost:{free_port()}", *train, *steps, str(tmp_path / "two")]
    finished(run(nodes, programs), run(nodes, programs))

    one = ["torchrun", "--standalone", "--nproc-per-node", "2", *train, *steps]
    finished(run([*one, str(tmp_path / "one")], programs))

    assert run_state.read_record(tmp_path / "two")["machine"]["processes"] == 2
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    rows = [
        [json.loads(row) for row in (tmp_path / out / "validation.jsonl").read_text().splitlines()]
        for out in ("two", "one")
    ]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == [2, 4]


def test_the_slurm_script_starts_the_nodes_and_goes_on_when_submitted_again(tmp_path, programs):
    environment = programs | {
        "SLURM_JOB_NODELIST": "fake[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": "7",
        "MASTER_PORT": str(free_port()),
    }
    out = tmp_path / "run"
    command = ["bash", str(SCRIPT), "vilseg_debug", str(out), *SETTINGS, "--train.steps"]
    finished(run([*command, "2"], environment))
    assert run_state.read_record(out)["machine"]["processes"] == 2

    environment["MASTER_PORT"] = str(free_port())
    finished(run([*command, "3"], environment))
    assert [step for step, _ in losses(out)] == [1, 2, 3]
    (resumed,) = run_state.read_record(out)["resumed"]
    assert (resumed["step"], resumed["processes"]) == (2, 2)
