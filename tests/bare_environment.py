"""Runs every command where only the package itself is installed, without its extras: its help, a
good and a bad call.

A plain program, for an environment that has no pytest:

    python tests/bare_environment.py                 in an environment without extras
    python tests/bare_environment.py --hide-extras   in any other, whose extras it cannot see
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

HIDDEN = {
    *(
        "lightning_fabric",
        "webdataset",
        "tensorboard",
        "scipy",
        "pycocotools",
        "matplotlib",
        "textblob",
        "lemminflect",
    ),
    *(
        "pyarrow",
        "braceexpand",
        "higra",
        "skimage",
        "contourpy",
        "av",
        "faiss",
        "timm",
        "open_clip",
        "pillow_heif",
        "kornia",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "openvino",
        "sklearn",
        "pydensecrf",
        "fastapi",
        "uvicorn",
        "python_multipart",
        "prometheus_client",
    ),
}
"""The extras, what else commands ask for, and what cannot be imported without these."""
DAVIS = "480p/one"
GOOD: list[tuple[str, ...]] = [
    ("segment", "photos/a.png", "--words", "sky", "tree"),
    (
        "track",
        "photos",
        "--words",
        "sky",
        "tree",
        "--out",
        "tracked",
        "--side-px",
        "64",
        "--animate",
        "webp",
    ),
    ("search", "sky", "photos", "--side-px", "64", "--num-segments", "3"),
    ("prepare", "teacher", "photos", "--out", "teacher", "--side-px", "64"),
    (
        "prepare",
        "prototypes",
        "teacher",
        "--words",
        "sky",
        "--num-segments",
        "3",
        "--top",
        "2",
        "--out",
        "p.safetensors",
    ),
    ("evaluate", "folder", "--data", "data", "--report", "--boundaries"),
    ("evaluate", "tracking", "davis", "--side-px", "64"),
    ("evaluate", "knn", "folder", "--data", "data", "--side-px", "64"),
    ("evaluate", "linear", "folder", "--data", "data", "--side-px", "64", "--epochs", "1"),
    ("compare", "results/*.json"),
    ("datasets", "--root", "data"),
    ("convert", "clip", "clip", "converted", "--last-block", "maskclip"),
    ("models",),
    ("download", "pocket"),
]
"""They do their work without any extra."""

LACKING: list[tuple[str, tuple[str, ...]]] = [
    ("label", ("label", "photos", "--words", "sky")),
    ("video", ("track", "film.mp4", "--words", "sky")),
    ("video", ("track", "photos", "--words", "sky", "--animate", "mp4")),
    ("entities", ("prepare", "entities", "shard.tar", "--out", "index")),
    ("regions", ("prepare", "segments", "photos", "--out", "segments")),
    ("train", ("prepare", "teacher", "shard.tar", "--out", "maps")),
    ("train", ("evaluate", "retrieval", "shard.tar")),
    ("train", ("train", "vilseg_debug", "--out", "run")),
    ("train,entities", ("train", "ovsegmentor_debug", "--out", "run")),
    ("train", ("distill", "pseudo-labels", "photos", "--words", "sky", "--out", "run")),
    ("train,regions", ("distill", "clips4", "photos", "--words", "sky", "--out", "run")),
    ("evaluate", ("evaluate", "folder", "--data", "data", "--chart")),
    ("evaluate", ("evaluate", "folder", "--data", "data", "--sweep", "threshold", "0:1:0.5")),
    ("evaluate", ("compare", "results/*.json", "--out", "ranking.png")),
    ("regions", ("evaluate", "regions", "bsds500")),
    ("serve", ("serve", "--port", "0")),
    ("fast", ("export", "pocket", "--onnx", "pocket.onnx")),
    ("fast", ("segment", "photos/a.png", "--words", "sky", "--runtime", "onnx")),
    ("openvino", ("track", "photos", "--words", "sky", "--runtime", "openvino")),
    ("openvino", ("segment", "photos/a.png", "--words", "sky", "--fast")),
    ("fast", ("search", "sky", "photos", "--runtime", "onnx")),
    ("zoo", ("convert", "clip", "open_clip:ViT-B-16:openai", "converted-too")),
]
"""They say which extras they lack, before any work."""

BAD: list[tuple[str, ...]] = [
    ("segment", "photos/a.png", "--words", "sky", "--model", "none"),
    ("label", "photos", "--words"),
    ("track", "photos"),
    ("search", "", "photos"),
    ("nothing",),
    ("prepare", "nothing"),
    ("distill", "nothing"),
    ("prepare", "teacher", "none", "--out", "maps"),
    ("train", "nothing"),
    ("distill", "pseudo-labels", "photos"),
    ("distill", "clips4", "none", "--words", "sky"),
    ("evaluate", "nothing", "--data", "data"),
    ("evaluate", "knn", "folder", "--data", "none"),
    ("evaluate", "tracking", "none"),
    ("evaluate", "regions", "none"),
    ("evaluate", "retrieval", "none.tar"),
    ("compare", "none.json"),
    ("datasets", "--root", "none"),
    ("convert", "clip", "none", "converted-too"),
    ("download", "none"),
    ("export", "none", "--onnx", "none.txt"),
]
"""They are refused in one line, with or without extras."""


class HidesExtras(PathFinder):
    """Finds what `PathFinder` finds, but nothing of the extras."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Return where a module is."""
        return (
            None
            if fullname.partition(".")[0] in HIDDEN
            else super().find_spec(fullname, path, target)
        )


def make_files() -> None:
    """Make the photos, benchmarks and models that the calls read, in the current folder."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import CLIPConfig, CLIPModel

    from maskfree.hub.catalog import model_folder
    from maskfree.text.tokenize import Tokenizer

    colors = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    ids = np.indices((48, 64)).sum(0) // 60
    for place in (
        "photos",
        "data/images",
        "data/labels",
        f"davis/JPEGImages/{DAVIS}",
        f"davis/Annotations/{DAVIS}",
    ):
        Path(place).mkdir(parents=True)
        for name in "abc":
            is_map = "labels" in place or "Annotations" in place
            picture = Image.fromarray(ids.astype(np.uint8) if is_map else colors)
            picture.save(Path(place) / f"{name}.{'jpg' if 'JPEG' in place else 'png'}")
    Path("data/classes.txt").write_text("sky\ntree\n", encoding="utf-8")
    for name in ("film.mp4", "shard.tar"):
        Path(name).write_bytes(b"anything")

    # A CLIP with random weights and the tokenizer of the bundled model.
    tokenizer = Tokenizer.from_file(model_folder("pocket") / "tokenizer.json")
    small = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = small | {
        "vocab_size": tokenizer.vocabulary_size,
        "max_position_embeddings": tokenizer.max_length,
    }
    vision = small | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    ).save_pretrained("clip")
    shutil.copy(model_folder("pocket") / "tokenizer.json", "clip")


def run(words: tuple[str, ...]) -> tuple[Any, str, str]:
    """Run a command; return its status, and what it prints on both streams."""
    from maskfree.cli import main

    expanded = [
        str(path)
        for word in words
        for path in (sorted(Path().glob(word)) if "*" in word else [word])
    ]
    out, errors = io.StringIO(), io.StringIO()
    status: Any = "no SystemExit"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main(expanded)
        except SystemExit as end:
            status = end.code or 0
        except Exception as error:  # a traceback is what must not be
            status = repr(error)
    return status, out.getvalue(), errors.getvalue()


def _no_work(*_: Any, **__: Any) -> None:
    raise AssertionError("a model was loaded before a missing extra was said")


def check() -> list[str]:
    """Run everything, and return what went wrong."""
    from maskfree.cli import COMMANDS, NESTED

    faults = []
    for words in [(), *((name,) for name in COMMANDS)]:
        status, out, _ = run((*words, "--help"))
        if status != 0 or "usage: maskfree" not in out:
            faults.append(f"maskfree {' '.join(words)} --help: {status}")
    loaded = {"torch", "transformers"} & set(sys.modules)
    if loaded:
        faults.append(f"--help imports {', '.join(loaded)}")
    make_files()
    from maskfree.hub import loading

    for words in GOOD:
        status, _, errors = run(words)
        if status != 0:
            faults.append(f"maskfree {' '.join(words)}: {status} {errors}")
    before = sorted(Path().rglob("*"))
    load, loading.load = loading.load, _no_work
    for extras, words in LACKING:
        status, _, errors = run(words)
        if (
            status != 2
            or errors.count("\n") != 1
            or f"pip install 'maskfree[{extras}]'" not in errors
        ):
            faults.append(f"maskfree {' '.join(words)} should name [{extras}]: {status} {errors}")
    loading.load = load
    for words in BAD:
        status, _, errors = run(words)
        if status != 2 or not errors.startswith("maskfree: error: ") or errors.count("\n") != 1:
            faults.append(f"maskfree {' '.join(words)}: {status} {errors}")
    if left := sorted(set(Path().rglob("*")) - set(before)):
        faults.append(f"commands that were refused wrote {', '.join(map(str, left))}")

    called = {words[0] for words in (*GOOD, *(words for _, words in LACKING))}
    if missing := (set(COMMANDS) | set(NESTED)) - called:
        faults.append(f"no call of {', '.join(sorted(missing))}")
    return faults


def main() -> int:
    """Check in a folder of its own; print what went wrong."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    if "--hide-extras" in sys.argv:
        sys.meta_path[:] = [
            HidesExtras if finder is PathFinder else finder for finder in sys.meta_path
        ]
    else:
        for name in sorted(HIDDEN):
            if PathFinder.find_spec(name):
                sys.exit(f"{name} is installed: this is not a bare environment; try --hide-extras")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        faults = check()
    for fault in faults:
        sys.stdout.write(f"{fault}\n")
    sys.stdout.write(f"{len(GOOD) + len(LACKING) + len(BAD)} calls, {len(faults)} faults\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
