"""Self-training: a zero-shot model labels photos, and a student learns those of its labels that are sure.

Source: ViL-Seg's "+ ST" (arXiv:2207.08455, Table 1), which does not say how. Ours: one round, thresholds for each class
(arXiv:1810.07911), a DeepLab head.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import dacite
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image

from maskfree import run_dir
from maskfree.config.rules import check
from maskfree.data.config import DataConfig
from maskfree.data.loader import seed_of
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.engine.config import Recipe
from maskfree.engine.run_state import differences
from maskfree.engine.train import fit
from maskfree.files.atomic import escape, read_json, replace_bytes, replace_text
from maskfree.files.outputs import check_run_folders
from maskfree.hub import checkpoint, loading
from maskfree.hub.catalog import model_folder
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import PhotoError, Segmenter
from maskfree.losses.pseudo_labels import IGNORE, LEVELS, confidence, thresholds
from maskfree.methods.student.config import StudentConfig, StudentViews
from maskfree.methods.student.model import Student
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.nn.deeplab import ResidualHead
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.progress import Watch, unwatched

log = logging.getLogger(__name__)

TEACHERS = {"ViLSegConfig": ViLSegConfig, "StudentConfig": StudentConfig}
"""Methods that can teach: they have an image encoder in `image.encoder` and a text embedder in `text`."""
KNOWN_RATE = 0.1  # factor on the learning rate of the teacher's projection


def self_train(
    model: str | Path,
    words: Sequence[str],
    photos: Sequence[Path],
    out: Path,
    settings: SelfTrainConfig | None = None,
    watch: Watch = unwatched,
) -> Path | None:
    """Train a student of MODEL for WORDS on PHOTOS, and return the folder of its checkpoint, OUT/model.

    The same call goes on after a stop; None if SIGINT or SIGTERM stopped it. WATCH wraps the photos that are still to
    be labeled, to show progress.

    Raises:
        ValueError: OUT holds a run with other settings, or the model cannot teach.
        OSError: photos or weights cannot be read, or OUT not written.
    """
    settings = settings or SelfTrainConfig()
    settings.train.check()
    check(settings)
    if settings.crop_px % settings.output_stride:
        raise ValueError(
            f"crop_px {settings.crop_px} is not whole patches of {settings.output_stride} px"
        )
    check_run_folders(out, ("photos", "labels", "start", "state", "model"), [model, *photos])
    teacher = _prepared(loading.load(model, settings.train.accelerator), settings).with_words(
        words, "none"
    )
    with run_dir.held(out):
        return _taught(model, teacher, photos, out, settings, watch)


def _taught(
    model: str | Path,
    teacher: Segmenter,
    photos: Sequence[Path],
    out: Path,
    settings: SelfTrainConfig,
    watch: Watch,
) -> Path | None:
    """Label PHOTOS and train a student in OUT, which this process holds."""
    histogram = pseudo_label(teacher, link(photos, out / "photos"), out / "labels", watch)
    chosen = thresholds(histogram, settings.keep, settings.balance)
    config = start(model, teacher, settings, out / "start")
    train = settings.train
    if config.known is not None:
        train = replace(
            train, lr_multipliers=(*train.lr_multipliers, ("image.projection.known", KNOWN_RATE))
        )
    recipe = Recipe(
        name=f"{teacher.name}-student",
        method=replace(config, labels=str(out / "labels"), thresholds=chosen),
        data=DataConfig(images=(str(out / "photos"),), workers=settings.workers),
        train=train,
        templates=teacher.templates,
        inference=Inference(side_px=teacher.inference.side_px),
        init=str(out / "start"),
    )
    done = fit(recipe, out, resume_run=(out / "run.json").exists())
    return out / "model" if done == settings.train.steps else None


def _prepared(teacher: Segmenter, settings: SelfTrainConfig) -> Segmenter:
    changes = {
        "side_px": settings.side_px,
        "smooth": settings.smooth,
        "class_prior": settings.class_prior,
    }
    return teacher.with_inference(teacher.inference.changed(**changes))


def link(photos: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Make a link to each photo in FOLDER, under a number and its name, so that no two have the same stem.

    Raises:
        ValueError: there are no photos, or FOLDER holds others.
        FileNotFoundError: a photo is not there.
    """
    if not photos:
        raise ValueError("no photos were given to learn from")
    folder.mkdir(parents=True, exist_ok=True)
    names = [escape(photo.name) for photo in photos]
    links = tuple(folder / f"{index:06d}-{name}" for index, name in enumerate(names))
    if surplus := sorted({each.name for each in folder.iterdir()} - {each.name for each in links}):
        raise ValueError(
            f"{folder} holds {surplus[0]}, which is not among the photos: give another folder"
        )
    for photo, place in zip(photos, links, strict=True):
        if not photo.is_file():
            raise FileNotFoundError(f"the photo {photo} is missing")
        if place.is_symlink() and place.resolve() != photo.resolve():
            raise ValueError(
                f"{place} is a link to another photo than {photo}: give another folder"
            )
        if not place.is_symlink():
            place.symlink_to(photo.resolve())
    return links


def pseudo_label(
    segmenter: Segmenter, photos: Sequence[Path], folder: Path, watch: Watch = unwatched
) -> Int64[np.ndarray, "k v"]:
    """Write SEGMENTER's labels with their confidence to FOLDER, a PNG for each photo; count pixels by both.

    The first channel is the class, the second how sure it is: the probability in a softmax over all phrases, in the
    8 bits of `losses.pseudo_labels.confidence`. A photo whose PNG is there is not labeled again, one that cannot be
    read is left out. FOLDER.json records the model, the words and the settings.

    Raises:
        ValueError: FOLDER holds labels of another model, other words or settings; or two photos have one stem.
        OSError: a file cannot be written.
    """
    if len({photo.stem for photo in photos}) < len(photos):
        raise ValueError("two photos have the same stem: label maps are named by it")
    vocabulary = segmenter.vocabulary
    if vocabulary is None or len(vocabulary.classes) > IGNORE or segmenter.background:
        raise ValueError(f"pseudo labels need 1 to {IGNORE} words and no background rule")
    segmenter = segmenter.with_inference(
        replace(segmenter.inference, score="softmax", refine="none")
    )
    _check_record(segmenter, photos, folder)
    folder.mkdir(parents=True, exist_ok=True)
    places = {photo: folder / f"{photo.stem}.png" for photo in photos}
    missing = [photo for photo in photos if not places[photo].is_file()]
    results = segmenter.segment_many(missing)
    for photo in watch(missing, "labelling"):
        result = next(results)
        if isinstance(result, PhotoError):
            log.warning("skipped %s: %s", photo, result.reason)
            continue
        _write(places[photo], np.stack([result.labels, confidence(result.scores)], axis=-1))
    histogram = np.zeros((len(vocabulary.classes), LEVELS), np.int64)
    for place in places.values():
        if place.is_file():
            with Image.open(place) as png:
                pairs = np.array(png)
            np.add.at(histogram, (pairs[..., 0].ravel(), pairs[..., 1].ravel()), 1)
    return histogram


def _check_record(segmenter: Segmenter, photos: Sequence[Path], folder: Path) -> None:
    """Write down what the labels follow from, or compare with what is written."""
    assert segmenter.vocabulary is not None
    record = {
        "weights_sha256": segmenter.weights_hash,
        "words": [list(synonyms) for synonyms in segmenter.vocabulary.classes],
        "templates": list(segmenter.templates),
        "inference": asdict(segmenter.inference),
        "photos_sha256": hashlib.sha256(
            "\n".join(photo.name for photo in photos).encode()
        ).hexdigest(),
    }
    path = folder.with_name(f"{folder.name}.json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    if changed := differences(read_json(path), record):
        raise ValueError(
            f"{folder} was made with another {', '.join(changed)}: give another folder"
        )


def _write(path: Path, pairs: UInt8[np.ndarray, "h w 2"]) -> None:
    """Write a PNG with an alpha channel, whole or not at all."""
    memory = io.BytesIO()
    Image.fromarray(pairs, "LA").save(memory, "PNG", compress_level=1)
    replace_bytes(path, memory.getvalue())


def start(
    model: str | Path, teacher: Segmenter, settings: SelfTrainConfig, folder: Path
) -> StudentConfig:
    """Write the student that training starts from to FOLDER, unless it is there; return its config.

    Its head is random, its text side and the phrases of its classes are those of TEACHER, which was loaded from MODEL.

    Raises:
        ValueError: the teacher's method has no text embedder to take over, or the weights do not fit the family.
        OSError: weights cannot be read, or FOLDER not written.
    """
    assert teacher.vocabulary is not None and teacher.embeddings is not None
    method, tokenizer, run, _ = checkpoint.load(model_folder(model), TEACHERS, "cpu")
    method = cast(ViLSeg | Student, method)
    image = part_of(run["config"], "image", ImageEncoderConfig)
    if settings.weights is not None:
        image = part_of({"image": {"family": settings.family}}, "image", ImageEncoderConfig)
        image = replace(image, weights=settings.weights)
    if image.family not in ("vit", "dinov2", "clip"):  # whose patches are what they are
        image = replace(image, output_stride=settings.output_stride)
    known = settings.correct and settings.weights is None and run["config"].get("image_projection")
    config = StudentConfig(
        image=image,
        known=part_of(run["config"], "image_projection", ProjectionConfig) if known else None,
        text=replace(part_of(run["config"], "text", TextEncoderConfig), frozen=True),
        text_projection=part_of(run["config"], "text_projection", ProjectionConfig),
        embed_dim=run["config"]["embed_dim"],
        synonyms=tuple(map(len, teacher.vocabulary.classes)),
        views=StudentViews(crop_px=settings.crop_px, side_px=teacher.inference.side_px),
    )
    if not folder.exists():
        torch.manual_seed(seed_of(settings.train.seed, "student"))
        student = config.build()
        student.text.load_state_dict(method.text.state_dict())
        student.phrases = teacher.embeddings.cpu().clone()
        if isinstance(student.image.projection, ResidualHead):
            student.image.projection.known.load_state_dict(method.image.projection.state_dict())
        if settings.weights is None:
            student.image.encoder.load_state_dict(method.image.encoder.state_dict())
        about = {"name": f"{teacher.name}-student", "templates": list(teacher.templates)}
        checkpoint.save(folder, student, config, tokenizer, about)
    return config.without_pretrained()


def part_of(config: dict[str, Any], name: str, kind: Any) -> Any:
    """Read one part of a checkpoint's config, settings of KIND.

    Raises:
        ValueError: they are none.
    """
    try:
        return dacite.from_dict(kind, config[name], dacite.Config(cast=[tuple], strict=True))
    except dacite.DaciteError as error:
        raise ValueError(f"{name}: {error}") from error
