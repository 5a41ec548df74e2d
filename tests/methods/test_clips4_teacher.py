"""CLIP as the teacher of CLIP-S4: any width, and one hash of its weights wherever they lie."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from maskfree.cli import main
from maskfree.hub import checkpoint, loading
from maskfree.hub.weights import file_hash, pack
from maskfree.methods.clips4.config import CLIPS4Config
from tiny_published import save_clip

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "clips4.md"
# Small and quick; what concerns the teacher is left as the page has it.
SMALL = (
    "--method.image.weights None --method.image-projection.hidden 16 --method.num-segments 4 "
    "--method.grid 8 --method.views.side-px 64 --method.semantic.num-unknown 2 --data.workers 0 "
    "--train.steps 1 --train.batch-size 2 --train.warm-up-steps 0 --train.accelerator cpu"
)


def commands_of_the_page() -> list[list[str]]:
    section = PAGE.read_text().partition("## CLIP as the teacher")[2]
    fence = re.search("```bash\n(.*?)```", section, re.DOTALL)
    assert fence
    lines = fence[1].replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line)[1:] for line in lines]


def run(command: str | list[str]) -> None:
    words = shlex.split(command) if isinstance(command, str) else command
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0, words


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
        photo = Image.fromarray(pixels).resize((90, 70), Image.Resampling.NEAREST)
        photo.save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_another_clip_changes_one_line_of_the_page(photos: Path, tiny_tokenizer):
    """The commands of the page with a CLIP of other widths, depths and vocabulary than B/16."""
    save_clip(photos.parent / "a-clip", tiny_tokenizer)
    first, *rest = commands_of_the_page()
    run(["a-clip" if word.startswith("openai/") else word for word in first])
    for words in rest:
        run([*words, *(shlex.split(SMALL) if words[0] == "train" else [])])

    student, teacher = (loading.load(folder) for folder in ("runs/clips4/model", "models/clip"))
    config = checkpoint.read_config(Path("runs/clips4/model"), {"CLIPS4Config": CLIPS4Config})
    assert isinstance(config, CLIPS4Config) and config.embed_dim == 18 != CLIPS4Config.embed_dim
    tokens = teacher.tokenizer(["a dog", "the sky"])
    torch.testing.assert_close(
        student.method.encode_text(tokens), teacher.method.encode_text(tokens)
    )


def test_weights_have_one_hash_in_any_container(photos: Path, tiny_tokenizer):
    """A folder of transformers, its weights as saved by torch, and the converted checkpoint."""
    save_clip(photos.parent / "a-clip", tiny_tokenizer)
    run("convert clip a-clip models/clip --last-block maskclip")
    there, here = (loading.load(name) for name in ("maskclip:a-clip", "models/clip"))
    assert there.weights_hash == here.weights_hash

    # Maps of one are taken with the other.
    run("prepare teacher photos --model maskclip:a-clip --out teacher")
    run("prepare prototypes teacher --words dog sky --model models/clip --out p.safetensors")
    record = json.loads(Path("teacher/teacher.json").read_text())
    assert record["weights_sha256"] == here.weights_hash


def test_the_hash_is_that_of_the_file(tmp_path: Path):
    """For every type that weights have, in no order, with an empty tensor and a scalar."""
    state = {
        "b.weight": torch.randn(3, 5),
        "a.half": torch.randn(7).half(),
        "z.count": torch.tensor(4),
        "c.flags": torch.tensor([True, False, True]),
        "a.bytes": torch.arange(5, dtype=torch.uint8),
        "m.strided": torch.randn(4, 6).T,
        "none": torch.zeros(0, 9),
        "größe": torch.ones(2, dtype=torch.int32),
    }
    save_file(pack(state, "float32"), tmp_path / "w.safetensors")
    assert file_hash(state) == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
