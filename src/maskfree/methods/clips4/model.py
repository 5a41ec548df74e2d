"""CLIP-S4: language-guided self-supervised segmentation (He, Jamonnak, Gou, Ren; CVPR 2023).

A student learns pixel embeddings from unlabeled photos. They are trained to be consistent within
regions and between views, and to agree with a vision-language teacher on each segment. Texts are
embedded by the teacher.

Differs: the teacher's features are precomputed, since they are the same in every epoch; the softmax
temperature over classes, which the paper does not state, is 1/20; the head is that of PSPNet
or any projection.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.clips4.batch import CLIPS4Batch
from maskfree.methods.clips4.objectives import (
    PixelSegmentObjective,
    PseudoLabelObjective,
    SemanticConsistencyObjective,
    embedding_term,
)
from maskfree.methods.clips4.view_segments import ViewSegments
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.types import Groups, Losses, Tokens

CLASS_SCALE = 20.0
"""Inverse temperature of the softmax over classes; the paper states none."""


class CLIPS4(Method):
    """CLIP-S4 with a pixel encoder, the teacher's frozen text encoder and its losses."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        contrast: PixelSegmentObjective | None,
        embedding_weight: float,
        semantic: SemanticConsistencyObjective | None,
        labels: PseudoLabelObjective | None,
        num_segments: int,
    ):
        super().__init__()
        self.image = image
        self.text = text.requires_grad_(False)
        self.contrast = contrast
        self.semantic = semantic
        self.labels = labels
        self._embedding_weight, self._num_segments = embedding_weight, num_segments

    def forward(self, batch: CLIPS4Batch) -> Losses:
        """Compute the training losses of a batch.

        Args:
            batch: Pairs of views with their regions and teacher features.

        Returns:
            The terms `contrast`, `embedding`, `semantic`, `unknown` and `labels`, as far as they
            are on, with metrics.
        """
        # Embeddings of both views, on the grid of the regions.
        raw = self.image(batch.images.flatten(0, 1)).float()
        size = batch.regions.shape[2:]
        pixels = F.normalize(F.interpolate(raw, size, mode="bilinear", align_corners=False), dim=1)

        # Segments are contrasted over the global batch.
        pixels = self.gather(pixels)
        regions = self.gather(batch.regions.flatten(0, 1).long())
        teacher = None
        if batch.teacher is not None:
            teacher = self.gather(batch.teacher.flatten(0, 1).float())

        parts: list[Losses] = []
        if self.contrast or self.semantic or self._embedding_weight:
            # All segment losses share one clustering.
            segments = ViewSegments.cut(pixels, regions, teacher, self._num_segments)
            if self.contrast:
                parts.append(self.contrast(segments))
            if self._embedding_weight:
                parts.append(embedding_term(segments, self._embedding_weight))
            if self.semantic:
                assert teacher is not None, "semantic consistency needs a teacher"
                parts.append(self.semantic(segments, teacher))

        # Baseline MaskCLIP+.
        if self.labels:
            assert teacher is not None, "pixel labels need a teacher"
            parts.append(self.labels(pixels, teacher))

        return Losses.merged(parts)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Groups with unit-norm embeddings, one per patch.
        """
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """Fixed inverse temperature of the softmax over classes.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return CLASS_SCALE

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.image.encoder.patch_size
