"""Self-training: a DeepLab student learns from confident pseudo labels of a zero-shot teacher.

The student predicts in the teacher's text space: its classifier is the teacher's fixed embeddings
of the class names. This is the self-training of "ViL-Seg + ST".

Source: MaskCLIP+, section 3.3 (arXiv:2112.01071).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import Grouping
from maskfree.losses.pseudo_labels import pixel_cross_entropy
from maskfree.method import Method
from maskfree.methods.student.batch import StudentBatch
from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.nn.pixel_groups import check_grouping, group_pixels
from maskfree.ops.ignore import IGNORE
from maskfree.ops.label_map import best_of_synonyms
from maskfree.types import Groups, Losses, Tokens

# Inverse temperature of the softmax over classes.
_CLASS_SCALE = 20.0


class Student(Method):
    """Image encoder with a DeepLab head, and the teacher's frozen text encoder."""

    def __init__(
        self,
        *,
        image: ImageProjector,
        text: TextProjector,
        clusters: ClusterHead | None,
        synonyms: Sequence[int],
        dim: int,
    ):
        super().__init__()
        self.image = image
        self.text = text.requires_grad_(False)
        # The teacher's, as it was: the student learns from labels of pixels.
        self.clusters = clusters.requires_grad_(False) if clusters else None
        self._grouping: Grouping = "pixels"
        self.phrases: Tensor | None
        phrases = F.normalize(torch.randn(sum(synonyms), dim), dim=-1) if synonyms else None
        # Text embeddings of the class names; random until the initial checkpoint is loaded.
        self.register_buffer("phrases", phrases)
        self._synonyms = tuple(synonyms)

    def forward(self, batch: StudentBatch) -> Losses:
        """Compute the cross-entropy of the labeled pixels.

        Args:
            batch: Images with label maps.

        Returns:
            The term `labels`, with the labeled share and the agreement with the labels as metrics.

        Raises:
            ValueError: The student was built without classes.
        """
        if self.phrases is None:
            raise ValueError(
                "a student without classes cannot be trained: name them in method.words"
            )

        # A class scores as its best synonym.
        pixels = F.normalize(self.image(batch.images).float(), dim=1)
        cosines = torch.einsum("bdhw,pd->bphw", pixels, self.phrases)
        logits = _CLASS_SCALE * best_of_synonyms(cosines, self._synonyms)
        loss = pixel_cross_entropy(logits, batch.labels)

        # Metrics on the patch grid, which is cheaper than on pixels.
        with torch.no_grad():
            # Labels are ids, so the nearest one is taken.
            small = F.interpolate(batch.labels[:, None].float(), logits.shape[2:], mode="nearest")[
                :, 0
            ]
            counts = small != IGNORE
            right = (logits.argmax(1) == small) & counts
            metrics = {
                "labeled": counts.float().mean(),
                "agreement": right.sum() / counts.sum().clamp_min(1),
            }

        return Losses({"labels": loss}, metrics)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own, unless `grouped` chose otherwise.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Groups with unit-norm embeddings.
        """
        return group_pixels(self.image(images), self._grouping, self.clusters)

    def grouped(self, grouping: Grouping) -> Self:
        """Return the student with other groups at inference.

        Args:
            grouping: What groups the patches; "own" stands for single pixels.

        Returns:
            A student that shares all weights with this one.

        Raises:
            ValueError: Clusters are asked for, and the teacher had no head that it could keep.
        """
        if grouping == "own":
            return self
        check_grouping(grouping, self.clusters)

        other = copy(self)
        other._grouping = grouping
        return other

    @property
    def logit_scale(self) -> float:
        """Fixed inverse temperature of the cross-entropy.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return _CLASS_SCALE

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels.
        """
        return self.image.encoder.patch_size
