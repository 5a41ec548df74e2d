"""Losses of CLIP-S4: pixel-segment contrast, embedding and semantic consistency, pixel labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.consistency import embedding_consistency, prototype_loss, semantic_consistency
from maskfree.losses.pixel_segment import pixel_segment_contrast
from maskfree.methods.clips4.classes import PrototypeClassifier
from maskfree.methods.clips4.view_segments import ViewSegments
from maskfree.ops.class_prior import apply_class_prior
from maskfree.ops.label_map import best_of_synonyms
from maskfree.types import Losses

# Momentum of the moving average of class frequencies.
_MOMENTUM = 0.98
# Region id of segments in the memory bank, which no pixel has.
_REMEMBERED = -2
# Concentration kappa (inverse temperature) of the contrast, as in the paper.
_CONCENTRATION = 10.0
UNKNOWN_SHARE = 0.5
"""Initial share of the teacher's segments that unknown classes get beside the embedded names."""


class PixelSegmentObjective(nn.Module):
    """L_t: pull pixels towards the segments of their region in both views, away from all others.

    Negatives are all other segments of the batch and those of earlier batches in the memory bank,
    which counts batches: how many segments a batch has depends on its regions.

    Source: eq. 1 and section 4.2.
    """

    def __init__(
        self,
        *,
        weight: float,
        memory: int,
        thin: int,
        dim: int,
    ):
        super().__init__()
        self._weight, self._thin = weight, thin
        self.bank: Tensor
        self.sizes: Tensor
        # Buffers, so that a resumed run keeps its memory bank.
        self.register_buffer("bank", torch.zeros(0, dim))
        # Number of segments of each batch in the bank, newest first.
        self.register_buffer("sizes", torch.zeros(memory, dtype=torch.long))

    def forward(self, segments: ViewSegments) -> Losses:
        """Contrast pixels with segments, and store the segments in the memory bank.

        Args:
            segments: Segments of the global batch.

        Returns:
            The term `contrast`.
        """
        # Every n-th pixel, on diagonals so that no row or column is left out.
        height, width = segments.ids.shape[1:]
        rows, columns = (torch.arange(side, device=segments.ids.device) for side in (height, width))
        chosen = (rows[:, None] + columns) % self._thin == 0

        regions = segments.pixel_regions()

        loss = pixel_segment_contrast(
            segments.pixels.movedim(1, -1)[:, chosen].flatten(0, 1),
            regions[:, chosen].flatten(),
            torch.cat([segments.embeddings, self.bank]),
            F.pad(segments.regions, (0, len(self.bank)), value=_REMEMBERED),
            _CONCENTRATION,
        )
        if self.training:
            self._remember(segments.embeddings.detach())

        return Losses({"contrast": self._weight * loss})

    @torch.no_grad()
    def _remember(self, embeddings: Float[Tensor, "m d"]) -> None:
        """Push the segments of a batch to the front of the memory bank, drop the oldest."""
        sizes = torch.cat([self.sizes.new_tensor([len(embeddings)]), self.sizes])
        self.sizes.copy_(sizes[: len(self.sizes)])
        together = torch.cat([embeddings.to(self.bank.dtype), self.bank])
        self.bank = together[: int(self.sizes.sum())].clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the bank of a saved state, whatever its length."""
        saved = state_dict.get(f"{prefix}bank")
        if saved is not None and saved.ndim == 2 and saved.shape[1] == self.bank.shape[1]:
            self.bank = self.bank.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SemanticConsistencyObjective(nn.Module):
    """L_s and L_u: the student classifies segments as the teacher does.

    Source: eq. 3 and 4.
    """

    def __init__(
        self,
        *,
        weight: float,
        scale: float,
        class_prior: float,
        soft: bool,
        classes: PrototypeClassifier,
    ):
        super().__init__()
        self.classes = classes
        self._weight, self._scale = weight, scale
        self._class_prior, self._soft = class_prior, soft
        self.shares: Tensor
        self.seen: Tensor
        count = classes.num_known + len(classes.unknown)
        # Moving average of class frequencies, without and with the class prior.
        self.register_buffer("shares", torch.full((2, count), 1 / count))
        # Number of batches in the moving average.
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, segments: ViewSegments, teacher: Float[Tensor, "b d h w"]) -> Losses:
        """Compare student and teacher on each segment.

        Args:
            segments: Segments of the global batch, with the teacher's embeddings.
            teacher: Unit-norm teacher embeddings of the pixels of all views.

        Returns:
            The terms `semantic` and, with unknown classes, `unknown`; agreement and known share as
            metrics.
        """
        assert segments.teacher is not None, "semantic consistency needs a teacher"

        # Targets: the teacher's classes of the segments.
        teacher_embeddings = F.normalize(segments.teacher, dim=1)
        scores = self._scores(teacher_embeddings, segments, teacher)
        labels = scores.argmax(1)
        certain = F.one_hot(labels, scores.shape[1]).to(scores.dtype)
        targets = (self._scale * scores).softmax(1) if self._soft else certain

        # The student's classes of the same segments.
        cosines = self.classes.cosines(segments.embeddings[..., None, None])[..., 0, 0]
        loss = _mean(semantic_consistency(cosines, targets, self._scale), segments)
        terms = {"semantic": self._weight * loss}

        # Move the prototypes of unknown classes towards their segments.
        if len(self.classes.unknown):
            terms["unknown"] = prototype_loss(
                teacher_embeddings, labels - self.classes.num_known, self.classes.unknown
            )

        with torch.no_grad():
            share = (labels < self.classes.num_known).float().sum() / max(1, len(labels))
            same = (cosines.argmax(1) == labels).float().sum() / max(1, len(labels))

        return Losses(terms, {"same_class": same, "known_share": share})

    @torch.no_grad()
    def _scores(
        self,
        teacher_embeddings: Float[Tensor, "m d"],
        segments: ViewSegments,
        teacher: Float[Tensor, "b d h w"],
    ) -> Float[Tensor, "m l"]:
        """Class scores of the teacher for each segment, with the class prior if it is on."""
        scores = self.classes.cosines(teacher_embeddings[..., None, None])[..., 0, 0]
        if not self._class_prior or not len(scores):
            return scores.float()

        # A class counts as present if either view of the photo shows it.
        shown = apply_class_prior(self.classes.cosines(teacher))[:, :, 0, 0]
        weighted = (
            scores + self._class_prior * shown.unflatten(0, (-1, 2)).amax(1)[segments.views // 2]
        )

        # Distribution alignment: each class keeps the frequency it has without the prior.
        if self.training:
            self._count(torch.stack([scores, weighted]))

        return weighted.float() + (self.shares[0] / self.shares[1]).log() / self._scale

    def _count(self, scores: Float[Tensor, "2 m l"]) -> None:
        """Update the moving average of class frequencies."""
        self.seen += 1
        # A plain mean over the first batches, then an exponential one.
        weight = max(1 / self.seen.item(), 1 - _MOMENTUM)
        self.shares.lerp_((self._scale * scores.float()).softmax(2).mean(1), weight)


class PseudoLabelObjective(nn.Module):
    """MaskCLIP+: the student learns the teacher's class of each pixel, among the known classes.

    Source: Zhou et al. 2022, section 3.3 (arXiv:2112.01071).

    Differs: the teacher labels throughout; the paper switches to the student's own labels after a
    tenth of the training.
    """

    def __init__(
        self, *, weight: float, scale: float, phrases: Float[Tensor, "p d"], synonyms: Sequence[int]
    ):
        super().__init__()
        self.phrases: Tensor
        self.register_buffer("phrases", phrases.clone())
        self._weight, self._scale, self._synonyms = weight, scale, tuple(synonyms)

    def forward(
        self, pixels: Float[Tensor, "b d h w"], teacher: Float[Tensor, "b d h w"]
    ) -> Losses:
        """Compute the cross-entropy with the teacher's labels.

        Args:
            pixels: Unit-norm pixel embeddings of the student.
            teacher: Unit-norm pixel embeddings of the teacher.

        Returns:
            The term `labels`, with the agreement as a metric.
        """
        labels = self._cosines(teacher).argmax(1)
        logits = self._scale * self._cosines(pixels)
        same = (logits.detach().argmax(1) == labels).float().mean()
        return Losses(
            {"labels": self._weight * F.cross_entropy(logits, labels)}, {"same_class": same}
        )

    def _cosines(self, embeddings: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k h w"]:
        """Cosine of each pixel to each class, by its closest synonym."""
        return best_of_synonyms(
            torch.einsum("bdhw,pd->bphw", embeddings, self.phrases), self._synonyms
        )


def embedding_term(segments: ViewSegments, weight: float) -> Losses:
    """L_e: the student's mean embedding of a segment has the direction of the teacher's.

    Args:
        segments: Segments of the global batch, with the teacher's embeddings.
        weight: Weight of the loss.

    Returns:
        The term `embedding`, with the mean cosine as a metric.

    Source: eq. 2.
    """
    assert segments.teacher is not None, "embedding consistency needs a teacher"
    losses = embedding_consistency(segments.embeddings, segments.teacher)
    loss = _mean(losses, segments)
    return Losses({"embedding": weight * loss}, {"similarity": (1 - loss).detach()})


def _mean(losses: Float[Tensor, " m"], segments: ViewSegments) -> Float[Tensor, ""]:
    """Mean over segments; zero with a gradient graph if there are none."""
    return losses.mean() if len(losses) else segments.pixels.sum() * 0
