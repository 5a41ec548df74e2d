"""Every option of every command that takes a file or a folder, and what it is given."""

from __future__ import annotations

import inspect
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from unittest import mock

from maskfree.cli import COMMANDS, NESTED
from maskfree.cli.distill import KINDS as DISTILL_KINDS
from maskfree.cli.evaluate import KINDS as EVALUATE_KINDS
from maskfree.cli.prepare import KINDS as PREPARE_KINDS

# Commands with their first argument, where this one picks a function of its own.
KINDS = [
    f"{command} {kind}"
    for command, kinds in (
        ("prepare", PREPARE_KINDS),
        ("distill", DISTILL_KINDS),
        ("evaluate", EVALUATE_KINDS),
    )
    for kind in kinds
]

# What a command is called with beside the hostile path, {}; {out} is a folder of the case's own,
# {photo} a good photo.
OPTIONS: dict[str, str] = {
    "segment photos": "segment {} --words sky --templates photo --out {out}",
    "segment model": "segment {photo} --words sky --model {} --out {out}",
    "label photos": "label {} --words sky --templates photo --out {out}",
    "label words": "label {photo} --words {} --out {out}",
    "label model": "label {photo} --words sky --model {} --out {out}",
    "track clip": "track {} --words sky --out {out}",
    "track first": "track {photo} --first {} --out {out}",
    "track model": "track {photo} --words sky --model {} --out {out}",
    "search photos": "search sky {} --templates photo --out {out}",
    "search model": "search sky {photo} --model {} --out {out}",
    "search settings.segments": "search sky {photo} --segments {} --out {out}",
    "serve models": "serve --models {} --port 0",
    "prepare entities shards": "prepare entities {} --out {out} --workers 1",
    "prepare entities choice.entities": (
        "prepare entities {hostile}/outside.tar --entities {} --out {out} --workers 1"
    ),
    "prepare segments photos": "prepare segments {} --out {out} --workers 1 --kind slic",
    "prepare segments config.detector": (
        "prepare segments {photo} --out {out} --detector dexined:{} --workers 1"
    ),
    "prepare teacher photos": "prepare teacher {} --out {out}",
    "prepare teacher model": "prepare teacher {photo} --model {} --out {out}",
    "prepare prototypes teacher": "prepare prototypes {} --words sky --out {out}/p.safetensors",
    "prepare prototypes model": (
        "prepare prototypes {photo} --words sky --model {} --out {out}/p.safetensors"
    ),
    "train recipe.init": "train vilseg_debug --init {} --data.shapes 12 --out {out}",
    "train recipe.data.shards": "train vilseg_debug --data.shapes 0 --data.shards {}"
    " --method.tokenizer {words} --out {out}",
    "train recipe.data.images": "train vilseg_debug --data.shapes 0 --data.images {}"
    " --method.tokenizer {words} --out {out}",
    "train recipe.data.index": "train ovsegmentor_debug --data.shapes 0 "
    "--data.shards {hostile}/outside.tar"
    " --data.index {} --method.tokenizer {words} --out {out}",
    "train recipe.validation.benchmark": (
        "train vilseg_debug --validation.benchmark voc20 {} --data.shapes 12 --out {out}"
    ),
    "train recipe.method.tokenizer": "train vilseg_debug --data.shapes 0 "
    "--data.shards {hostile}/outside.tar"
    " --method.tokenizer {} --out {out}",
    "train recipe.method.image.weights": (
        "train vilseg_debug --method.image.weights {} --data.shapes 12 --out {out}"
    ),
    "train recipe.method.text.weights": (
        "train vilseg_debug --method.text.weights {} --data.shapes 12 --out {out}"
    ),
    "train recipe.method.weights": "",
    "train recipe.method.entities": "train ovsegmentor_debug --data.shapes 0 "
    "--data.shards {hostile}/outside.tar"
    " --data.index {hostile}/folders/loop --method.tokenizer "
    "{words} --method.entities {} --out {out}",
    "train recipe.method.segments": (
        "train clips4_debug --method.segments {} --data.shapes 12 --out {out}"
    ),
    "train recipe.method.teacher": (
        "train clips4_debug --method.teacher {} --data.shapes 12 --out {out}"
    ),
    "train recipe.method.prototypes": "train clips4_pocket --data.shards {hostile}/outside.tar"
    " --method.prototypes {} --out {out}",
    "train recipe.method.image.stem.weights": "",
    "train recipe.method.tag_scores.image.weights": "",
    "train recipe.method.words.tags": "train vilseg_pocket --method.words.tags {} "
    "--data.shards {hostile}/outside.tar"
    " --method.tokenizer {words} --method.image.weights {bench} "
    "--method.text.weights {bench} --out {out}",
    "train out": "train vilseg_debug --out {} --resume",
    "distill pseudo-labels data": "distill pseudo-labels --benchmark voc20 --data {} --out {out}",
    "distill pseudo-labels photos": "distill pseudo-labels {} --words sky --out {out}",
    "distill pseudo-labels model": (
        "distill pseudo-labels {photos} --words sky --model {} --out {out}"
    ),
    "distill pseudo-labels settings.student.weights": "distill pseudo-labels"
    " {photos} --words sky --weights {} --out {out}",
    "distill clips4 photos": "distill clips4 {} --words sky --workers 0 --out {out}",
    "distill clips4 model": "distill clips4 {photos} --words sky --model {} --out {out}",
    "distill clips4 settings.student.weights": (
        "distill clips4 {photos} --words sky --weights {} --out {out}"
    ),
    "distill clips4 settings.segments.detector": "distill clips4 {photos} --words sky"
    " --segments.detector dexined:{} --out {out}",
    "evaluate data": "evaluate voc20 folder coco-mini-80 --data {} --results {out}",
    "evaluate model": "evaluate folder --data {bench} --model {} --results {out}",
    "evaluate knn data": "evaluate knn camvid --data {} --results {out}",
    "evaluate knn model": "evaluate knn camvid --data {bench} --model {} --results {out}",
    "evaluate linear data": "evaluate linear camvid --data {} --results {out}",
    "evaluate linear model": "evaluate linear camvid --data {bench} --model {} --results {out}",
    "evaluate tracking davis": "evaluate tracking {} --results {out}",
    "evaluate tracking model": "evaluate tracking {bench} --model {} --results {out}",
    "evaluate retrieval shards": "evaluate retrieval {} --results {out}",
    "evaluate retrieval model": "evaluate retrieval {bench}/pairs.tar --model {} --results {out}",
    "evaluate regions folder": "evaluate regions {} --results {out}",
    "evaluate regions config.detector": (
        "evaluate regions {photos} --detector dexined:{} --results {out}"
    ),
    "compare files": "compare {} --out {out}/picture.png",
    "download names": "download {}",
    "segment model (naclip)": "segment {photo} --words sky --model naclip:{} --out {out}",
    "segment model (ovsegmentor)": "segment {photo} --words sky --model ovsegmentor:{} --out {out}",
    "segment model (groupvit)": "segment {photo} --words sky --model groupvit:{} --out {out}",
    "convert file": "convert clip {} {out} --tokenizer {pocket}",
    "convert file (ovsegmentor)": "convert ovsegmentor {} {out} --tokenizer {pocket}",
    "convert file (groupvit)": "convert groupvit {} {out} --tokenizer {pocket}",
    "export model": "export {} --onnx {out}/model.onnx",
    "export onnx": "export pocket --onnx {}",
    "convert tokenizer": "convert clip {hostile}/repeated.pt {out} --tokenizer {}",
}
# Files of every sort are given to every option, and all of its own sort to each; models are
# folders.
ALWAYS = (
    "pickle.pkl",
    "saved.pt",
    "objects.npy",
    "nested.json",
    "bytes.txt",
    "empty",
    "everything",
    "loop",
)
PICTURES = {".png", ".jpg", ".tif", ".gif", ".svg", ".mp4"}
TENSORS = {".pt", ".pth", ".bin", ".safetensors"}
TEXTS = {".json", ".txt", ".yaml", ".npy", ".npz", ".mat", ".parquet"}
ARCHIVES = {".tar", ".zip"}
SORTS: dict[str, set[str]] = {
    "photos": PICTURES,
    "words": {".txt", ".yaml"},
    "clip": PICTURES,
    "first": PICTURES,
    "settings.segments": PICTURES,
    "shards": ARCHIVES,
    "recipe.data.shards": ARCHIVES,
    "file": TENSORS,
    "file (ovsegmentor)": TENSORS,
    "config.detector": TENSORS,
    "recipe.method.prototypes": TENSORS,
    "choice.entities": TEXTS,
    "recipe.method.entities": TEXTS,
    "recipe.method.words.tags": TEXTS,
    "files": TEXTS,
    "tokenizer": TEXTS,
}
# Options whose text is no path that is read. A new option of text must come here or above.
NO_FILES = {
    *(
        "words",
        "background",
        "templates",
        "device",
        "word",
        "benchmarks",
        "benchmark",
        "protocol",
        "sweep",
        "names",
    ),
    *(
        "sequences",
        "recipe",
        "study",
        "what",
        "kind",
        "prompt",
        "known",
        "leave_out",
        "name",
        "init_names",
        "lr_multipliers",
    ),
    *(
        "init_without",
        "frozen",
        "accelerator",
        "devices",
        "refine",
        "last_block",
        "animate",
        "only",
        "format",
        "host",
        "hosts",
        "label_studio",
    ),
}
# Their file is read after something that the tests have not: kornia, a whole CLIP, or onnxruntime.
LATE = ("detector", "convert tokenizer", "method.words.tags", "export model", "export onnx")
WRITTEN = {
    "out",
    "results",
    "root",
    "copy_review",
}  # folders that are made, or that are only looked at


@dataclass(frozen=True)
class Case:
    """One call of the command line."""

    name: str
    arguments: list[str]


def cases(hostile: dict[str, Path], work: Path) -> Iterator[Case]:
    """Every file and folder for every option."""
    from PIL import Image
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    from maskfree.hub.catalog import model_folder

    (work / "photos").mkdir()
    Image.new("RGB", (32, 24), (90, 120, 200)).save(work / "photos" / "sky.png")
    _make_benchmarks(work / "bench", work / "photos" / "sky.png")
    (work / "words").mkdir()
    words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "sky"))}
    Tokenizer(WordLevel(words, unk_token="[UNK]")).save(str(work / "words" / "tokenizer.json"))
    places = {
        "bench": str(work / "bench"),
        "words": str(work / "words"),
        "photos": str(work / "photos"),
        "photo": str(work / "photos" / "sky.png"),
        "pocket": str(model_folder("pocket")),
        "hostile": str(next(iter(hostile.values())).parent),
    }
    for option, template in OPTIONS.items():
        for name, path in hostile.items():
            if not template or not _given(option, name, path):
                continue
            out = work / "out" / option.replace(" ", "_") / name
            arguments = [word.format(path, out=out, **places) for word in template.split()]
            yield Case(f"{option}: {name}", arguments)


def _make_benchmarks(folder: Path, photo: Path) -> None:
    """One folder that is a benchmark of one's own, CamVid and DAVIS, with one photo each, and
    holds a shard of one photo.
    """
    from PIL import Image

    truth = Image.new("L", Image.open(photo).size)
    for kind, images, labels in (
        ("", "images/a.png", "labels/a.png"),
        ("val/", "images/a.png", "labels/a.png"),
        ("train/", "images/a.png", "labels/a.png"),
        ("", "JPEGImages/480p/a/00000.jpg", "Annotations/480p/a/00000.png"),
    ):
        for path, picture in ((images, Image.open(photo)), (labels, truth)):
            (folder / kind / path).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / path)
    (folder / "ImageSets" / "2017").mkdir(parents=True)
    (folder / "ImageSets" / "2017" / "val.txt").write_text("a\n")
    (folder / "classes.txt").write_text("sky\n")
    with tarfile.open(folder / "pairs.tar", "w") as shard:
        shard.add(photo, "a.png")
        shard.add(folder / "classes.txt", "a.txt")


def _given(option: str, name: str, path: Path) -> bool:
    """Say whether a file is one of those for an option."""
    if name in ALWAYS:
        return True
    command, _, short = option.partition(" ")
    kind, _, rest = short.partition(" ")
    if f"{command} {kind}" in KINDS:
        short = rest
    if path.is_dir():
        return (
            short
            in ("model", "models", "settings.student.weights", "data", "davis", "folder", "out")
            or "weights" in short
        )
    return path.suffix in SORTS.get(short, set())


class _Found(Exception):  # noqa: N818 - no error
    pass


def text_options() -> dict[str, set[str]]:
    """All options that are a text or a path, by command: the dotted names of the parameters."""
    found = {}
    for name, command in COMMANDS.items():
        if name not in NESTED:
            found[name] = set(_texts_of(command))
    for name, first in (
        *(tuple(kind.split()) for kind in KINDS),
        *(("train", recipe) for recipe in ("vilseg_pocket", "ovsegmentor_debug", "clips4_debug")),
        ("evaluate", "folder"),
    ):
        key = f"{name} {first}"
        if key not in KINDS:
            key = name
        found.setdefault(key, set()).update(_texts_of(*_target(name, first)))
    return found


def _target(name: str, first: str) -> tuple[Callable[..., Any], Any]:
    """What tyro would be given to parse the options of a command, with its default."""
    caught: list[tuple[Any, Any]] = []

    def catch(target: Any, **named: Any) -> None:
        caught.append((target, named.get("default")))
        raise _Found

    with mock.patch("tyro.cli", catch):
        try:
            NESTED[name]([first])
        except _Found:
            return caught[0]
    raise AssertionError(f"{name} {first} has no options")


def _texts_of(target: Any, default: Any = None, start: str = "") -> Iterator[str]:
    if is_dataclass(target):
        hints = get_type_hints(
            target if isinstance(target, type) else type(target), include_extras=True
        )
        names = [field.name for field in fields(target)]
    else:
        hints = get_type_hints(target, include_extras=True)
        names = list(inspect.signature(target).parameters)
    for name in names:
        value = getattr(default, name, None) if default is not None else None
        inner = (
            type(value)
            if is_dataclass(value)
            else next(filter(is_dataclass, _types(hints[name])), None)
        )
        if inner is not None:
            yield from _texts_of(inner, value, f"{start}{name}.")
        elif {str, Path} & set(_types(hints[name])):
            yield start + name


def _types(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Literal:
        return
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    if inner and get_origin(kind) is not dict:
        for choice in inner:
            yield from _types(choice)
    else:
        yield kind
