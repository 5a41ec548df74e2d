"""Settings of a student that learns from pseudo labels."""

from __future__ import annotations

from dataclasses import replace

from maskfree.method_config import StudentParts
from maskfree.methods.student.config import StudentConfig, StudentViews
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig


def pseudo_label_student(
    parts: StudentParts,
    encoder: ImageEncoderConfig,
    known: ProjectionConfig | None,
    *,
    synonyms: tuple[int, ...],
    crop_px: int,
    side_px: int,
) -> StudentConfig:
    """DeepLab student of any method that states its `student_parts`.

    Args:
        parts: Parts of the teacher.
        encoder: Image encoder of the student.
        known: Image projection of the teacher that the head corrects; None for the head alone.
        synonyms: Number of phrases of each class.
        crop_px: Side of a training crop, in pixels.
        side_px: Shorter side of the photos at zoom 1, in pixels.

    Returns:
        Settings of the method, without its labels.
    """
    return StudentConfig(
        image=encoder,
        known=known,
        # The head was trained on embeddings that only a corrected projection begins with.
        num_clusters=parts.num_clusters if known else 0,
        text=replace(parts.text, frozen=True),
        text_projection=parts.text_projection,
        embed_dim=parts.embed_dim,
        synonyms=synonyms,
        views=StudentViews(crop_px=crop_px, side_px=side_px),
    )
