"""The terms of CLIP-S4: pixel-segment contrast, embedding and semantic consistency; and MaskCLIP+'s pixel labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.losses.consistency import embedding_consistency, prototype_loss, semantic_consistency
from maskfree.losses.pixel_segment import NO_REGION, pixel_segment_contrast
from maskfree.losses.pseudo_labels import best_of_synonyms
from maskfree.ops.class_prior import apply_class_prior
from maskfree.ops.segments import intersect, segment_sums, segment_values, spherical_kmeans
from maskfree.types import Losses

_REGIONS = 256  # numbers that a photo's regions can have
_SHARE, _MOST = 0.1, 0.1  # of the class prior, as inference has them by default
_MOMENTUM = 0.98  # of the classes' shares
_REMEMBERED = -2  # the region of segments of other batches, which no pixel is in


@dataclass(frozen=True)
class ViewSegments:
    """Two views of each photo of the global batch, cut into segments by their pixel embeddings and by regions."""

    pixels: Float[Tensor, "b d h w"]  # unit norm; b views, those of a photo beside each other
    ids: Int[Tensor, "b h w"]  # segment of each pixel within its view; -1 is none
    most: int  # segments that a view has room for
    embeddings: Float[Tensor, "m d"]  # of the segments that have pixels, unit norm
    rows: Int[
        Tensor, "b most"
    ]  # where the segments of a view are among these; anything for those without pixels
    views: Int[Tensor, " m"]  # that each segment is in
    regions: Int[
        Tensor, " m"
    ]  # of each segment; the same in both views of a photo, different between photos
    teacher: (
        Float[Tensor, "m d"] | None
    )  # what the teacher sees in each segment: a sum of unit vectors

    @classmethod
    def cut(
        cls,
        pixels: Float[Tensor, "b d h w"],
        regions: Int[Tensor, "b h w"],
        teacher: Float[Tensor, "b d h w"] | None,
        num_segments: int,
        location: float,
    ) -> ViewSegments:
        """Cluster the pixels of each view into NUM_SEGMENTS by direction and place, and cut clusters along REGIONS."""
        most = 2 * num_segments  # with what the borders of regions add
        ids = intersect(
            spherical_kmeans(pixels.detach(), num_segments, location=location), regions, most
        )
        sums, counts = segment_sums(pixels, ids, most)
        there = counts > 0
        photos = torch.arange(len(pixels), device=pixels.device)[:, None] // 2
        numbers = photos * _REGIONS + segment_values(regions, ids, most)
        return cls(
            pixels=pixels,
            ids=ids,
            most=most,
            embeddings=F.normalize(sums[there], dim=1),
            rows=there.flatten().cumsum(0).view_as(there) - 1,
            views=there.nonzero()[:, 0],
            regions=numbers[there],
            teacher=segment_sums(teacher, ids, most)[0][there] if teacher is not None else None,
        )

    def own(self) -> tuple[Int[Tensor, "b h w"], Int[Tensor, "b h w"]]:
        """Return each pixel's segment as a row of `embeddings`, and that segment's region; none has `NO_REGION`."""
        rows = self.rows.gather(1, self.ids.flatten(1).clamp_min(0)).view_as(self.ids)
        outside = self.ids < 0
        if not len(self.regions):
            return torch.zeros_like(rows), torch.full_like(rows, NO_REGION)
        return rows, self.regions[rows.clamp(0, len(self.regions) - 1)].masked_fill(
            outside, NO_REGION
        )


class PixelSegmentObjective(nn.Module):
    """L_t: each pixel is drawn to the segments of its region in both views, and away from all others.

    Negatives are all other segments of the batch, and those of the batches before that the memory bank still holds.
    Source: eq. 1 and section 4.2.
    """

    def __init__(
        self,
        *,
        weight: float,
        concentration: float,
        memory: int,
        leave_out_own: bool,
        thin: int,
        dim: int,
    ):
        super().__init__()
        self._weight, self._concentration, self._thin = weight, concentration, thin
        self._leave_out_own = leave_out_own
        self.bank: Tensor
        self.filled: Tensor
        self.register_buffer("bank", torch.zeros(memory, dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def forward(self, segments: ViewSegments) -> Losses:
        """Contrast pixels with segments, and remember the segments."""
        height, width = segments.ids.shape[1:]
        rows, columns = (torch.arange(side, device=segments.ids.device) for side in (height, width))
        chosen = (rows[:, None] + columns) % self._thin == 0
        own, regions = segments.own()
        filled = int(self.filled)
        loss = pixel_segment_contrast(
            segments.pixels.movedim(1, -1)[:, chosen].flatten(0, 1),
            regions[:, chosen].flatten(),
            torch.cat([segments.embeddings, self.bank[:filled]]),
            F.pad(segments.regions, (0, filled), value=_REMEMBERED),
            self._concentration,
            own[:, chosen].flatten() if self._leave_out_own else None,
        )
        if self.training:
            self._remember(segments.embeddings.detach())
        return Losses({"contrast": self._weight * loss})

    @torch.no_grad()
    def _remember(self, embeddings: Float[Tensor, "m d"]) -> None:
        together = torch.cat([embeddings.to(self.bank.dtype), self.bank])[: len(self.bank)]
        self.filled.fill_(min(int(self.filled) + len(embeddings), len(self.bank)))
        self.bank.copy_(together)


class PrototypeClassifier(nn.Module):
    """Prototypes of known classes, which stay, and of unknown ones, which move as K-means moves its centers.

    A known class may have several prototypes, of which the closest counts: its names, for a teacher whose texts and
    pixels lie together. Source: section 3.2, "Target Class Prototypes", which has one of segments for each class.
    """

    def __init__(
        self, known: Float[Tensor, "p d"], sizes: Sequence[int], unknown: Float[Tensor, "u d"]
    ):
        super().__init__()
        self.known: Tensor
        self.lead: Tensor
        self.register_buffer("known", known.clone())
        self.register_buffer("lead", torch.zeros(()))  # what unknown classes must win by
        self.unknown = nn.Parameter(unknown.clone(), requires_grad=len(unknown) > 0)
        self._sizes = (*sizes, *[1] * len(unknown))
        self.num_known = len(sizes)

    def share_out(self, segments: Float[Tensor, "m d"], share: float) -> None:
        """Set what unknown classes must win by so that this SHARE of a teacher's SEGMENTS, unit norm, is theirs."""
        cosines = self.cosines(segments.T[None, :, :, None])[0, :, :, 0]
        margins = cosines[self.num_known :].amax(0) - cosines[: self.num_known].amax(0)
        self.lead.copy_(margins.quantile(1 - share))

    def cosines(self, embeddings: Float[Tensor, "b d h w"]) -> Float[Tensor, "b l h w"]:
        """Return the cosine of unit embeddings to each class, known ones first, of unknown ones less their lead.

        Prototypes are constants here.
        """
        prototypes = F.normalize(torch.cat([self.known, self.unknown.detach()]), dim=1)
        cosines = best_of_synonyms(
            torch.einsum("bdhw,pd->bphw", embeddings, prototypes), self._sizes
        )
        return torch.cat(
            [cosines[:, : self.num_known], cosines[:, self.num_known :] - self.lead], dim=1
        )


class SemanticConsistencyObjective(nn.Module):
    """L_s and, for the unknown classes, L_u: the student names segments as the teacher does. Source: eq. 3 and 4."""

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
        self._weight, self._scale, self._presence, self._soft = (
            weight,
            scale,
            class_prior,
            soft,
        )
        self.shares: Tensor
        self.seen: Tensor
        count = classes.num_known + len(classes.unknown)
        self.register_buffer(
            "shares", torch.full((2, count), 1 / count)
        )  # of classes, before and after holding back
        self.register_buffer("seen", torch.zeros(()))  # batches

    def forward(self, segments: ViewSegments, teacher: Float[Tensor, "b d h w"]) -> Losses:
        """Compare what student and TEACHER, its pixels of all views, say of each segment."""
        assert segments.teacher is not None, "semantic consistency needs a teacher"
        theirs = F.normalize(segments.teacher, dim=1)
        scores = self._scores(theirs, segments, teacher)
        labels = scores.argmax(1)
        certain = F.one_hot(labels, scores.shape[1]).to(scores.dtype)
        targets = (self._scale * scores).softmax(1) if self._soft else certain
        cosines = self.classes.cosines(segments.embeddings[..., None, None])[..., 0, 0]
        terms = {
            "semantic": self._weight
            * _mean(semantic_consistency(cosines, targets, self._scale), segments)
        }
        if len(self.classes.unknown):
            terms["unknown"] = prototype_loss(
                theirs, labels - self.classes.num_known, self.classes.unknown
            )
        with torch.no_grad():
            share = (labels < self.classes.num_known).float().sum() / max(1, len(labels))
            same = (cosines.argmax(1) == labels).float().sum() / max(1, len(labels))
        return Losses(terms, {"same_class": same, "known_share": share})

    @torch.no_grad()
    def _scores(
        self,
        theirs: Float[Tensor, "m d"],
        segments: ViewSegments,
        teacher: Float[Tensor, "b d h w"],
    ) -> Float[Tensor, "m l"]:
        """What the teacher says of each segment; classes that it sees nowhere in either view are held back."""
        scores = self.classes.cosines(theirs[..., None, None])[..., 0, 0]
        if not self._presence or not len(scores):
            return scores.float()
        shown = apply_class_prior(self.classes.cosines(teacher), _SHARE, _MOST)[:, :, 0, 0]
        held = scores + self._presence * shown.unflatten(0, (-1, 2)).amax(1)[segments.views // 2]
        if self.training:
            self._count(torch.stack([scores, held]))
        return held.float() + (self.shares[0] / self.shares[1]).log() / self._scale

    def _count(self, scores: Float[Tensor, "2 m l"]) -> None:
        """Note which share of the segments each class has, so that a rare one is held back here and not everywhere."""
        self.seen += 1
        weight = max(1 / self.seen.item(), 1 - _MOMENTUM)
        self.shares.lerp_((self._scale * scores.float()).softmax(2).mean(1), weight)


class PseudoLabelObjective(nn.Module):
    """MaskCLIP+: the student learns the class that the teacher gives each pixel, of the known ones, by their names.

    Source: Zhou et al. 2022, section 3.3 (arXiv:2112.01071). Differs: the teacher labels throughout; the paper goes
    over to the student's own labels after a tenth of the training.
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
        """Compare what student and teacher say of each pixel; both have unit norm."""
        labels = self._cosines(teacher).argmax(1)
        logits = self._scale * self._cosines(pixels)
        same = (logits.detach().argmax(1) == labels).float().mean()
        return Losses(
            {"labels": self._weight * F.cross_entropy(logits, labels)}, {"same_class": same}
        )

    def _cosines(self, embeddings: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k h w"]:
        return best_of_synonyms(
            torch.einsum("bdhw,pd->bphw", embeddings, self.phrases), self._synonyms
        )


def embedding_term(segments: ViewSegments, weight: float) -> Losses:
    """L_e: the student's mean embedding of a segment points where the teacher's does. Source: eq. 2."""
    assert segments.teacher is not None, "embedding consistency needs a teacher"
    losses = embedding_consistency(segments.embeddings, segments.teacher)
    loss = _mean(losses, segments)
    return Losses({"embedding": weight * loss}, {"similarity": (1 - loss).detach()})


def _mean(losses: Float[Tensor, " m"], segments: ViewSegments) -> Float[Tensor, ""]:
    """The mean over segments; zero, with a graph, if there is none."""
    return losses.mean() if len(losses) else segments.pixels.sum() * 0
