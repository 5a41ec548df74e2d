"""Two gloo processes learn what one does from the same global batch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from maskfree.distributed import processes_of_launcher
from maskfree.engine import run_state
from maskfree.engine.train import fit
from maskfree.methods.ovsegmentor.mask_matching import MATCHINGS
from maskfree.nn import binding
from two_processes import WITH_HEADS, gradient, methods, recipe


def test_two_processes_have_the_gradient_of_one(tmp_path, monkeypatch):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("two_processes.py")), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr(
        binding, "gumbel_noise", binding.gumbel_noise
    )  # `gradient` replaces it, and it must come back
    monkeypatch.setitem(MATCHINGS, "paper", MATCHINGS["paper"])  # `methods` does
    for name, (config, batch) in methods().items():
        first, second = (
            load_file(tmp_path / f"gradient-{rank}-{name}.safetensors") for rank in (0, 1)
        )
        assert_close(first, second, atol=0, rtol=0)
        whole = gradient(config, batch)
        # Heads with batch norms enlarge what rounding leaves of tiny deviations.
        if name not in WITH_HEADS:
            assert_close(first, whole, atol=1e-6, rtol=1e-4)
        flat, expected = (
            torch.cat([part[key].flatten() for key in sorted(whole)]) for part in (first, whole)
        )
        assert (flat - expected).norm() < 3e-3 * expected.norm(), name

    run = tmp_path / "run"
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert run_state.read_record(run)["machine"]["processes"] == 2
    positions = run_state.load_state(run)[1]["positions"]
    assert positions.shape == (2, 1, 3) and (positions[:, 0, :2].sum(1) > 0).all()
    assert (run / "model" / "weights.safetensors").is_file()

    # One process with two data workers reads the same streams, and goes on.
    whole = recipe()
    train, data = replace(whole.train, steps=6), replace(whole.data, workers=2)
    assert fit(replace(whole, train=train, data=data), run, resume_run=True) == 6
    resumed = run_state.read_record(run)["resumed"][-1]
    assert (resumed["step"], resumed["processes"]) == (4, 1)
    assert resumed["changed"] == {"train.steps": [4, 6], "data.workers": [0, 2]}
    later = run_state.load_state(run)[1]["positions"]
    assert later.shape == (1, 2, 3)
    # Either stream has 8 of the 16 photos: passes done, and photos of the one that goes on.
    done = (8 * positions[:, 0, 0] + positions[:, 0, 1]).tolist()
    assert done == [16, 16]
    assert (8 * later[0, :, 0] + later[0, :, 1]).tolist() == [24, 24]
    with pytest.raises(ValueError, match=r"2 streams \(1 processes x 2 data workers\), not 1"):
        fit(replace(whole, train=replace(train, steps=7)), run, resume_run=True)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("3", 1)),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, ("4", 2)),
        # An srun job of 5 machines, and an interactive shell in one.
        ({"SLURM_NNODES": "5", "SLURM_NTASKS": "10", "SLURM_JOB_NAME": "train"}, ("3", 5)),
        ({"SLURM_NNODES": "5", "SLURM_NTASKS": "10", "SLURM_JOB_NAME": "bash"}, ("3", 1)),
    ],
)
def test_machines_are_those_of_the_launcher(monkeypatch, variables, expected):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_NNODES", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes_of_launcher("3") == expected
