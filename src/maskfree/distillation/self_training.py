"""Self-training: a student learns from the confident pseudo labels of a zero-shot teacher.

Source: ViL-Seg's "+ ST" (arXiv:2207.08455, Table 1), which gives no details.

Differs: one round, with thresholds for each class (arXiv:1810.07911) and a DeepLab head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from maskfree import run_dir
from maskfree.config.rules import check
from maskfree.data.config import DataConfig
from maskfree.data.order import seed_of
from maskfree.distillation.pseudo_labels import link, pseudo_label
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.distillation.student_parts import initial_weights, own_image_encoder, parts_of
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.engine.train import LOG_SETTINGS, fit
from maskfree.files.outputs import check_run_folders
from maskfree.hub import checkpoint, loading
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.losses.pseudo_labels import thresholds
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.progress import Watch, unwatched
from maskfree.recipes.student import pseudo_label_student
from maskfree.text.tokenize import Tokenizer

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

    check_run_folders(
        out, ("photos", "labels", "teacher", "start", "state", "model"), [model, *photos]
    )
    # Weights of others are converted once, in the run folder.
    model = loading.checkpoint_of(model, out / "teacher")
    # No background: every pixel gets one of the words.
    teacher = _prepared(
        loading.load(model, settings.student.train.accelerator), settings
    ).with_words(words, "none")
    # A model that cannot teach is reported before the photos are labeled.
    parts = parts_of(teacher.name, model)
    _image_encoder(teacher, parts, settings)

    # The teacher's projection is trained already: it learns slowly.
    train = settings.student.train
    if _known_projection(parts, settings) is not None:
        rates = (*train.lr_multipliers, ("image.projection.known", KNOWN_RATE))
        train = replace(train, lr_multipliers=rates)

    with run_dir.held(out):
        return _taught(model, teacher, photos, out, settings, train, watch)


def _taught(
    model: Path,
    teacher: Segmenter,
    photos: Sequence[Path],
    out: Path,
    settings: SelfTrainConfig,
    train: TrainConfig,
    watch: Watch,
) -> Path | None:
    """Label the photos and train a student in a folder that this process holds."""
    histogram = pseudo_label(teacher, link(photos, out / "photos"), out / "labels", watch)
    # The least confidence of each class that training uses.
    chosen = thresholds(histogram, settings.keep, settings.balance)

    config = start(model, teacher, settings, out / "start")
    changes = {"labels": str(out / "labels"), "thresholds": chosen}
    recipe = Recipe(
        name=f"{teacher.name}-student",
        method=replace(config, **changes),
        data=DataConfig(images=(str(out / "photos"),), workers=settings.student.workers),
        train=train,
        templates=teacher.templates,
        inference=Inference(side_px=teacher.inference.side_px),
        init=str(out / "start"),
    )

    done = fit(recipe, out, (out / "run.json").exists(), LOG_SETTINGS)
    return out / "model" if done == train.steps else None


def _prepared(teacher: Segmenter, settings: SelfTrainConfig) -> Segmenter:
    """The teacher with the inference settings of self-training."""
    changes = {
        "side_px": settings.student.side_px,
        "smooth": settings.smooth,
        "class_prior": settings.class_prior,
    }
    return teacher.with_inference(teacher.inference.changed(**changes))


def start(model: Path, teacher: Segmenter, settings: SelfTrainConfig, folder: Path) -> MethodConfig:
    """Write the initial checkpoint of the student, unless it is there.

    The head is random; the text encoder and the class embeddings are the teacher's.

    Args:
        model: Checkpoint folder of the teacher.
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
    parts = parts_of(teacher.name, model)
    config = pseudo_label_student(
        parts,
        _image_encoder(teacher, parts, settings),
        _known_projection(parts, settings),
        synonyms=tuple(map(len, teacher.vocabulary.classes)),
        crop_px=settings.student.crop_px,
        side_px=teacher.inference.side_px,
    )

    if not folder.exists():
        # The random head is the same whenever it is made anew.
        torch.manual_seed(seed_of(settings.student.train.seed, "student"))
        student = config.build()

        # Take what the teacher and the student share.
        taken = {parts.text_prefix: "text.encoder", parts.text_projection_prefix: "text.projection"}
        if config.known is not None:
            taken[parts.image_projection_prefix] = "image.projection.known"
        if config.num_clusters:
            taken[parts.clusters_prefix] = "clusters"
        # Another encoder has its own weights.
        if settings.student.weights is None:
            taken[parts.image_prefix] = "image.encoder"
        initial = initial_weights(model, taken)
        checkpoint.start_from(model, student, dict(initial.renamed), initial.without)
        student.phrases = teacher.embeddings.cpu().clone()

        about = {"name": f"{teacher.name}-student", "templates": list(teacher.templates)}
        tokenizer = Tokenizer.from_file(model / checkpoint.TOKENIZER)
        checkpoint.save(folder, student, config, tokenizer, about)

    return config.without_pretrained()


def _image_encoder(
    teacher: Segmenter, parts: StudentParts, settings: SelfTrainConfig
) -> ImageEncoderConfig:
    """Image encoder of the student: the teacher's own, or that of `weights`."""
    if settings.student.weights is None:
        image = own_image_encoder(teacher.name, parts)
    else:
        image = ImageEncoderConfig(settings.student.family, weights=settings.student.weights)
        check(image)

    # Vision transformers have a fixed patch size.
    if image.family in ("vit", "dino", "dinov2", "dinov3", "clip"):
        return image
    return replace(image, output_stride=settings.student.output_stride)


def _known_projection(parts: StudentParts, settings: SelfTrainConfig) -> ProjectionConfig | None:
    """Image projection of the teacher that the student corrects; None for a head from scratch."""
    # A correction needs the teacher's own encoder, and a projection without another correction.
    if not settings.correct or settings.student.weights is not None or parts.correction is not None:
        return None
    return parts.image_projection
