"""CLIP-S4: language-guided self-supervised segmentation (He, Jamonnak, Gou, Ren; CVPR 2023).

A student learns pixel embeddings from unlabeled photos: consistent within coherent regions and between views, and,
segment by segment, in agreement with a vision-language model that sees the whole photo. Its texts are the teacher's.

Differs: the teacher's embeddings are read from a folder, since they are the same in every pass; the temperature of the
softmax over target classes, which the paper does not name, is a setting; the head is PSPNet's or any projection.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.clips4.objectives import (
    PixelSegmentObjective,
    PseudoLabelObjective,
    SemanticConsistencyObjective,
    ViewSegments,
    embedding_term,
)
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.types import Batch, Groups, Losses, Tokens


class CLIPS4(Method):
    """A pixel encoder, the teacher's text side, which does not learn, and the terms that are on."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        contrast: PixelSegmentObjective | None,
        embedding_weight: float,
        semantic: SemanticConsistencyObjective | None,
        labels: PseudoLabelObjective | None,
        clusters: tuple[int, float],
        scale: float,
    ):
        super().__init__()
        self.image = image
        self.text = text.requires_grad_(False)
        self.contrast = contrast
        self.semantic = semantic
        self.labels = labels
        self._embedding_weight, self._scale = embedding_weight, scale
        self._num_segments, self._location = clusters

    def forward(self, batch: Batch) -> Losses:
        """Return the terms `contrast`, `embedding`, `semantic` with `unknown`, and `labels`, as far as they are on."""
        pairs = batch.pairs
        assert pairs is not None, "CLIP-S4 learns from two views of each photo"
        raw = self.image(pairs.images.flatten(0, 1)).float()
        size = pairs.regions.shape[2:]
        pixels = F.normalize(F.interpolate(raw, size, mode="bilinear", align_corners=False), dim=1)
        pixels = self.gather(pixels)
        regions = self.gather(pairs.regions.flatten(0, 1).long())
        teacher = (
            self.gather(pairs.teacher.flatten(0, 1).float()) if pairs.teacher is not None else None
        )
        parts: list[Losses] = []
        if self.contrast or self.semantic or self._embedding_weight:
            segments = ViewSegments.cut(
                pixels, regions, teacher, self._num_segments, self._location
            )
            if self.contrast:
                parts.append(self.contrast(segments))
            if self._embedding_weight:
                parts.append(embedding_term(segments, self._embedding_weight))
            if self.semantic:
                assert teacher is not None, "semantic consistency needs a teacher"
                parts.append(self.semantic(segments, teacher))
        if self.labels:
            assert teacher is not None, "pixel labels need a teacher"
            parts.append(self.labels(pixels, teacher))
        return _together(parts)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts as the teacher does; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own."""
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """Inverse temperature of the softmax over target classes."""
        return self._scale

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.encoder.patch_size


def _together(parts: Iterable[Losses]) -> Losses:
    terms, metrics = {}, {}
    for part in parts:
        terms |= part.terms
        metrics |= part.metrics
    return Losses(terms, metrics)
