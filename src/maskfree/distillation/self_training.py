"""Self-training: a student learns from the confident pseudo labels of a zero-shot teacher.

Source: ViL-Seg's "+ ST" (arXiv:2207.08455, Table 1), which gives no details.

Differs: one round, with thresholds for each class (arXiv:1810.07911) and a DeepLab head.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image

from maskfree import run_dir
from maskfree.config.rules import check
from maskfree.data.config import DataConfig
from maskfree.data.order import seed_of
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.distillation.student_parts import initial_weights, parts_of
from maskfree.engine.config import Recipe
from maskfree.engine.train import fit
from maskfree.files.atomic import escape, replace_bytes
from maskfree.files.outputs import check_run_folders
from maskfree.hub import checkpoint, loading
from maskfree.hub.catalog import model_folder
from maskfree.inference.config import Inference
from maskfree.inference.photos import PhotoError
from maskfree.inference.segmenter import Segmenter
from maskfree.losses.pseudo_labels import LEVELS, confidence, thresholds
from maskfree.method_config import StudentParts
from maskfree.methods.student.config import StudentConfig, StudentViews
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch, unwatched
from maskfree.text.tokenize import Tokenizer

log = logging.getLogger(__name__)

KNOWN_RATE = 0.1
"""Learning rate multiplier of the projection taken from the teacher."""


def self_train(
    model: str | Path,
    words: Sequence[str],
    photos: Sequence[Path],
    out: Path,
    settings: SelfTrainConfig | None = None,
    watch: Watch = unwatched,
) -> Path | None:
    """Train a student on pseudo labels of a teacher.

    Calling it again with the same arguments resumes a stopped run.

    Args:
        model: Model name or folder of the teacher.
        words: Classes that the student learns.
        photos: Photo files to label and learn from.
        out: Folder of the run.
        settings: Settings of self-training; None for the defaults.
        watch: Wraps the photos that are still to be labeled, to show progress.

    Returns:
        Folder of the student's checkpoint, `out/model`; None if SIGINT or SIGTERM stopped training.

    Raises:
        ValueError: The folder holds a run with other settings, or the model cannot teach.
        OSError: Photos or weights cannot be read, or the folder cannot be written.
    """
    settings = settings or SelfTrainConfig()
    settings.check()

    check_run_folders(out, ("photos", "labels", "start", "state", "model"), [model, *photos])
    # No background: every pixel gets one of the words.
    teacher = _prepared(
        loading.load(model, settings.student.train.accelerator), settings
    ).with_words(words, "none")
    # A model that cannot teach is reported before the photos are labeled.
    _image_encoder(teacher, parts_of(teacher.name, model_folder(model)), settings)
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
    """Label the photos and train a student in a folder that this process holds."""
    histogram = pseudo_label(teacher, link(photos, out / "photos"), out / "labels", watch)
    # The least confidence of each class that training uses.
    chosen = thresholds(histogram, settings.keep, settings.balance)

    config = start(model, teacher, settings, out / "start")
    train = settings.student.train
    # The teacher's projection is trained already: it learns slowly.
    if config.known is not None:
        train = replace(
            train, lr_multipliers=(*train.lr_multipliers, ("image.projection.known", KNOWN_RATE))
        )

    recipe = Recipe(
        name=f"{teacher.name}-student",
        method=replace(config, labels=str(out / "labels"), thresholds=chosen),
        data=DataConfig(images=(str(out / "photos"),), workers=settings.student.workers),
        train=train,
        templates=teacher.templates,
        inference=Inference(side_px=teacher.inference.side_px),
        init=str(out / "start"),
    )

    done = fit(recipe, out, resume_run=(out / "run.json").exists())
    return out / "model" if done == settings.student.train.steps else None


def _prepared(teacher: Segmenter, settings: SelfTrainConfig) -> Segmenter:
    """The teacher with the inference settings of self-training."""
    changes = {
        "side_px": settings.student.side_px,
        "smooth": settings.smooth,
        "class_prior": settings.class_prior,
    }
    return teacher.with_inference(teacher.inference.changed(**changes))


def link(photos: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Link photos under numbered names, so that no two have the same stem.

    Args:
        photos: Photo files.
        folder: Folder for the links; may hold those of an earlier call.

    Returns:
        The links, in the order of the photos.

    Raises:
        ValueError: There are no photos, or the folder holds others.
        FileNotFoundError: A photo is missing.
    """
    if not photos:
        raise ValueError("no photos were given to learn from")
    folder.mkdir(parents=True, exist_ok=True)

    names = [escape(photo.name) for photo in photos]
    links = tuple(folder / f"{index:06d}-{name}" for index, name in enumerate(names))
    # Other links would be labeled and learned from, too.
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
    """Write pseudo labels with their confidence as PNG files.

    Channel 1 is the class, channel 2 its confidence: the softmax probability over all phrases, in
    the 8 bits of `losses.pseudo_labels.confidence`. Photos with a PNG are not labeled again, and
    unreadable photos are left out. A JSON file beside the folder records the model, the words and
    the settings.

    Args:
        segmenter: Teacher, with class names and without a background rule.
        photos: Photo files with different stems.
        folder: Folder for the PNG files, named by the photos' stems.
        watch: Wraps the photos that are still to be labeled, to show progress.

    Returns:
        Number of pixels of each class and confidence level.

    Raises:
        ValueError: The folder holds labels of another model, other words or settings; or two photos
            have the same stem.
        OSError: A file cannot be written.
    """
    if len({photo.stem for photo in photos}) < len(photos):
        raise ValueError("two photos have the same stem: label maps are named by it")

    vocabulary = segmenter.vocabulary
    if vocabulary is None or len(vocabulary.classes) > IGNORE or segmenter.background:
        raise ValueError(f"pseudo labels need 1 to {IGNORE} words and no background rule")

    # Confidence is the softmax probability of the label.
    segmenter = segmenter.with_inference(
        replace(segmenter.inference, score="softmax", refine="none")
    )
    _check_record(segmenter, photos, folder)

    folder.mkdir(parents=True, exist_ok=True)
    places = {photo: folder / f"{photo.stem}.png" for photo in photos}
    # An earlier call may have been stopped.
    missing = [photo for photo in photos if not places[photo].is_file()]

    results = segmenter.segment_many(missing)
    for photo in watch(missing, "labeling"):
        result = next(results)
        if isinstance(result, PhotoError):
            log.warning("skipped %s: %s", photo, result.reason)
            continue
        _write(places[photo], np.stack([result.labels, confidence(result.scores)], axis=-1))

    # Count over all files, also those of an earlier call.
    histogram = np.zeros((len(vocabulary.classes), LEVELS), np.int64)
    for place in places.values():
        if place.is_file():
            with Image.open(place) as png:
                pairs = np.array(png)
            np.add.at(histogram, (pairs[..., 0].ravel(), pairs[..., 1].ravel()), 1)

    return histogram


def _check_record(segmenter: Segmenter, photos: Sequence[Path], folder: Path) -> None:
    """Record what the labels depend on, or compare it with the record there."""
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

    run_dir.check_record(folder.with_name(f"{folder.name}.json"), record, folder)


def _write(path: Path, pairs: UInt8[np.ndarray, "h w 2"]) -> None:
    """Write a PNG of two channels (gray and alpha) atomically."""
    memory = io.BytesIO()
    Image.fromarray(pairs, "LA").save(memory, "PNG", compress_level=1)
    replace_bytes(path, memory.getvalue())


def start(
    model: str | Path, teacher: Segmenter, settings: SelfTrainConfig, folder: Path
) -> StudentConfig:
    """Write the initial checkpoint of the student, unless it is there.

    The head is random; the text encoder and the class embeddings are the teacher's.

    Args:
        model: Model name or folder of the teacher.
        teacher: The teacher loaded from it, with class names.
        settings: Settings of self-training.
        folder: Folder of the initial checkpoint.

    Returns:
        Settings of the student, without pretrained weights.

    Raises:
        ValueError: The teacher's method cannot teach, has no image side that a student can have, or
            the weights do not fit the family.
        OSError: Weights cannot be read, or the folder cannot be written.
    """
    assert teacher.vocabulary is not None and teacher.embeddings is not None
    parts = parts_of(teacher.name, model_folder(model))
    config = StudentConfig(
        image=_image_encoder(teacher, parts, settings),
        known=_known_projection(parts, settings),
        text=replace(parts.text, frozen=True),
        text_projection=parts.text_projection,
        embed_dim=parts.embed_dim,
        synonyms=tuple(map(len, teacher.vocabulary.classes)),
        views=StudentViews(crop_px=settings.student.crop_px, side_px=teacher.inference.side_px),
    )

    if not folder.exists():
        # The random head is the same whenever it is made anew.
        torch.manual_seed(seed_of(settings.student.train.seed, "student"))
        student = config.build()

        # Take what the teacher and the student share.
        taken = {parts.text_prefix: "text.encoder", parts.text_projection_prefix: "text.projection"}
        if config.known is not None:
            taken[parts.image_projection_prefix] = "image.projection.known"
        # Another encoder has its own weights.
        if settings.student.weights is None:
            taken[parts.image_prefix] = "image.encoder"
        initial = initial_weights(model_folder(model), taken)
        checkpoint.start_from(model_folder(model), student, dict(initial.renamed), initial.without)
        student.phrases = teacher.embeddings.cpu().clone()

        about = {"name": f"{teacher.name}-student", "templates": list(teacher.templates)}
        tokenizer = Tokenizer.from_file(model_folder(model) / checkpoint.TOKENIZER)
        checkpoint.save(folder, student, config, tokenizer, about)

    return config.without_pretrained()


def _image_encoder(
    teacher: Segmenter, parts: StudentParts, settings: SelfTrainConfig
) -> ImageEncoderConfig:
    """Image encoder of the student: the teacher's own, or that of `weights`."""
    image = parts.image
    if settings.student.weights is not None:
        image = ImageEncoderConfig(settings.student.family, weights=settings.student.weights)
        check(image)
    if image is None:
        raise ValueError(
            f"a student cannot have the image side of {teacher.name}: "
            "name the weights of another encoder (--weights)"
        )

    # Vision transformers have a fixed patch size.
    if image.family in ("vit", "dinov2", "clip"):
        return image
    return replace(image, output_stride=settings.student.output_stride)


def _known_projection(parts: StudentParts, settings: SelfTrainConfig) -> ProjectionConfig | None:
    """Image projection of the teacher that the student corrects; None for a head from scratch."""
    # A correction needs the teacher's own encoder, and a projection without another correction.
    if not settings.correct or settings.student.weights is not None or parts.correction is not None:
        return None
    return parts.image_projection
