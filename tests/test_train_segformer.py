"""The example that trains a SegFormer on what `maskfree label` wrote."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_a_segformer_learns_from_the_labels(tmp_path):
    data = tmp_path / "data"
    words = ["person", "cat", "cup", "sky", "building", "tree", "wall"]
    label = ["label", str(EXAMPLES), "--words", *words, "--out", str(data), "--format", "mmseg"]
    subprocess.run([sys.executable, "-m", "maskfree", *label], check=True)

    command = [sys.executable, str(EXAMPLES / "train_segformer.py"), str(data / "mmseg")]
    command += ["--base", "tiny", "--steps", "60", "--side", "64", "--rate", "0.01"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "segformer")], capture_output=True, text=True, check=True
    )
    losses = [float(value) for value in re.findall(r"loss ([0-9.]+)", done.stdout)]
    assert losses[-1] < 0.7 * losses[0]
    assert "agrees with" in done.stdout
    assert (tmp_path / "segformer" / "model.safetensors").is_file()
