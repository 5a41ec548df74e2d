"""CLIP-S4 distillation of a vision-language model into a student, from photos without labels.

Source: CLIP-S4 (arXiv:2305.01040), all of its steps in a row.

Differs: the student is initialized from its teacher where possible; the paper's student is a
ResNet-50 with CLIP as its teacher.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from maskfree import run_dir
from maskfree.data.cache.region_preparation import SegmentPreparation
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.config import DataConfig
from maskfree.data.photo_folders import find_photos
from maskfree.data.photo_sources import are_shards, read_sources
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.distillation.prototypes import prepare_prototypes
from maskfree.distillation.pseudo_labels import link
from maskfree.distillation.student_parts import initial_weights, own_image_encoder, parts_of
from maskfree.distillation.teacher_features import prepare_teacher
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.engine.run_state import settings_of
from maskfree.engine.train import LOG_SETTINGS, fit
from maskfree.files.outputs import check_run_folders
from maskfree.hub import loading
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.method_config import StudentParts
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.progress import Watch, unwatched
from maskfree.recipes.clips4 import clips4_student
from maskfree.regions.region_maps import check_installed, region_map

log = logging.getLogger(__name__)

# As in DeepLab's head.
_HEAD_CHANNELS = 256

RECORD = "distill.json"
"""File in the run folder with the settings of the distillation."""
# Large, because the record names all photos.
_MAX_RECORD_BYTES = 2**28


def distill(
    model: str | Path,
    words: Sequence[str],
    photos: Sequence[str],
    out: Path,
    settings: DistillConfig | None = None,
    watch: Watch = unwatched,
) -> Path | None:
    """Train a student of a teacher model on photos without labels.

    Calling it again with the same arguments resumes a stopped run. The student can segment any
    words.

    Args:
        model: Model name or folder of the teacher.
        words: Known classes during training.
        photos: Folders of photos, or shards.
        out: Folder of the run.
        settings: Settings of the distillation; None for the defaults.
        watch: Wraps the photos of each step, to show progress.

    Returns:
        Folder of the student's checkpoint, `out/model`; None if SIGINT or SIGTERM stopped training.

    Raises:
        ValueError: The folder holds a run with other settings, the model cannot teach, or settings
            do not fit each other.
        OSError: Photos or weights cannot be read, or the folder cannot be written.
    """
    settings = settings or DistillConfig()
    settings.check()
    check_installed(settings.segments)
    # Unreadable sources are reported before any work.
    read_sources(photos)

    check_run_folders(
        out, ("photos", "segments", "teacher", "clip", "state", "model"), [model, *photos]
    )
    with run_dir.held(out):
        return _distilled(model, words, photos, out, settings, watch)


def _distilled(
    model: str | Path,
    words: Sequence[str],
    photos: Sequence[str],
    out: Path,
    settings: DistillConfig,
    watch: Watch,
) -> Path | None:
    """Run the steps of `distill` in a folder that this process holds."""
    shards = are_shards(photos)
    folder = out / "photos"
    # Photos in folders are read through links in the run folder.
    sources = (str(folder),)
    if shards:
        sources = tuple(photos)

    # Weights of others are converted once, in the run folder.
    teacher_model = loading.checkpoint_of(model, out / "clip")
    teacher = loading.load(teacher_model, settings.student.train.accelerator).with_words(
        words, "none"
    )
    teacher = teacher.with_inference(teacher.inference.changed(side_px=settings.student.side_px))

    # Settings that do not fit are reported before the photos are prepared.
    recipe = _recipe(teacher, teacher_model, settings)
    _check_record(out / RECORD, teacher, words, photos, settings)

    # Links have unique names, by which the prepared files are named.
    if not shards:
        link([Path(photo) for photo in find_photos(photos)], folder)
    made = _prepare(teacher, sources, out, settings, watch)
    data = DataConfig(images=sources, workers=settings.student.workers)
    if shards:
        data = DataConfig(shards=sources, workers=settings.student.workers)
    recipe = replace(recipe, method=replace(recipe.method, **made), data=data)

    done = fit(recipe, out, (out / "run.json").exists(), LOG_SETTINGS)
    return out / "model" if done == settings.student.train.steps else None


def _prepare(
    teacher: Segmenter, sources: tuple[str, ...], out: Path, settings: DistillConfig, watch: Watch
) -> dict[str, str]:
    """Make the inputs of training that are missing; return their paths by setting name."""
    places = {name: out / name for name in ("segments", "teacher")} | {
        "prototypes": out / "prototypes.safetensors"
    }

    # Class-agnostic regions of the photos.
    cutting = SegmentPreparation(
        sources, places["segments"], asdict(settings.segments), settings.student.workers
    )
    cutting.run(partial(region_map, config=settings.segments), watch)

    # Patch embeddings of the teacher.
    prepare_teacher(teacher, sources, places["teacher"], watch)

    # Class prototypes among the teacher's segments.
    if not places["prototypes"].exists():
        config = PrototypeConfig(top=settings.top)
        found, lost = prepare_prototypes(teacher, TeacherMaps(places["teacher"]), config, watch)
        for name in lost:
            log.warning(
                "no segment of the photos resembles %r most: its prototype is of something else",
                name,
            )
        found.write(places["prototypes"])

    return {name: str(place) for name, place in places.items()}


def _recipe(teacher: Segmenter, model: Path, settings: DistillConfig) -> Recipe:
    """Settings of the student's training, but for the prepared inputs.

    Raises:
        ValueError: A student cannot take the teacher's text or image encoder, or the weights do not
            fit the family.
        OSError: The weights cannot be read.
    """
    parts = parts_of(teacher.name, model)
    own = settings.student.weights is None
    # A student with the teacher's encoder and projection starts as its teacher.
    whole = own and parts.image_projection is not None
    if own:
        encoder = own_image_encoder(teacher.name, parts)
    else:
        encoder = ImageEncoderConfig(
            settings.student.family,
            weights=settings.student.weights,
            output_stride=settings.student.output_stride,
        )

    # Building the encoder reports wrong weights before hours of work.
    patch_size = encoder.build().patch_size
    if settings.student.crop_px % patch_size:
        raise ValueError(
            f"crop_px {settings.student.crop_px} is not whole patches of {patch_size} px"
        )

    projection, train = None, settings.student.train
    if not whole:
        projection, train = ProjectionConfig("pyramid", hidden=_HEAD_CHANNELS), _whole(train)
    base = clips4_student(
        parts,
        encoder,
        new_projection=projection,
        num_unknown=settings.num_unknown,
        crop_px=settings.student.crop_px,
    )
    initial = initial_weights(model, _taken(parts, own, whole))

    # A student scores patches, not groups, and has no margins for a class prior to use.
    inference = replace(teacher.inference, class_prior=0.0, class_level=0.0)
    if inference.score == "product":
        inference = Inference(side_px=inference.side_px)

    return replace(
        base,
        name=f"{teacher.name}-student",
        train=train,
        templates=teacher.templates,
        inference=inference,
        init=str(model),
        init_names=initial.renamed,
        init_without=initial.without,
    )


def _taken(parts: StudentParts, own: bool, whole: bool) -> dict[str, str]:
    """Prefixes of the teacher's weights that the student takes, each with the student's prefix."""
    taken = {parts.text_prefix: "text.encoder", parts.text_projection_prefix: "text.projection"}
    if own:
        taken[parts.image_prefix] = "image.encoder"
    if whole:
        taken[parts.image_projection_prefix] = "image.projection"
        # The teacher's projection becomes the known part of a new correction.
        if parts.correction is None:
            taken[parts.image_projection_prefix] = "image.projection.known"
    return taken


def _whole(train: TrainConfig) -> TrainConfig:
    """Train the encoder together with a new head, at a tenth of the learning rate."""
    return replace(train, lr_multipliers=(("image.encoder", 0.1),), frozen=(), frozen_steps=0)


def _check_record(
    path: Path, teacher: Segmenter, words: Sequence[str], photos: Sequence[str], settings: Any
) -> None:
    """Record the inputs of the run, or compare them with the record there.

    Raises:
        ValueError: The run has other settings, or the record is damaged.
    """
    record = {
        "model": {"name": teacher.name, "weights_sha256": teacher.weights_hash},
        "words": list(words),
        "photos": list(photos),
        "settings": settings_of(settings),
    }
    # How often a run logs and saves may change on resuming.
    free = [f"settings.student.{name}" for name in LOG_SETTINGS]
    run_dir.check_record(path, record, free=free, max_bytes=_MAX_RECORD_BYTES)
