"""Known and unknown classes of CLIP-S4, each with its prototypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.ops.label_map import best_of_synonyms


class PrototypeClassifier(nn.Module):
    """Nearest-prototype classifier with known and unknown classes.

    The prototypes of known classes are fixed; those of unknown classes are updated as in K-means. A
    known class may have several prototypes (synonyms), of which the closest counts, for a teacher
    whose text and pixel embeddings are aligned.

    Source: section 3.2, "Target Class Prototypes", which has one prototype per class, of segments.
    """

    def __init__(
        self, known: Float[Tensor, "p d"], sizes: Sequence[int], unknown: Float[Tensor, "u d"]
    ):
        super().__init__()
        self.known: Tensor
        self.lead: Tensor
        self.register_buffer("known", known.clone())
        # Margin by which an unknown class must exceed the best known class.
        self.register_buffer("lead", torch.zeros(()))
        self.unknown = nn.Parameter(unknown.clone(), requires_grad=len(unknown) > 0)
        self._sizes = (*sizes, *[1] * len(unknown))
        self.num_known = len(sizes)

    def share_out(self, segments: Float[Tensor, "m d"], share: float) -> None:
        """Set the margin of unknown classes so that they get a given share of a teacher's segments.

        Args:
            segments: Unit-norm segment embeddings of the teacher.
            share: Share of the segments that unknown classes get, in (0, 1).
        """
        cosines = self.cosines(segments.T[None, :, :, None])[0, :, :, 0]
        # The margin is the quantile that leaves this share above it.
        margins = cosines[self.num_known :].amax(0) - cosines[: self.num_known].amax(0)
        self.lead.copy_(margins.quantile(1 - share))

    def cosines(self, embeddings: Float[Tensor, "b d h w"]) -> Float[Tensor, "b l h w"]:
        """Compare embeddings with classes; prototypes get no gradient.

        Args:
            embeddings: Unit-norm embeddings.

        Returns:
            Cosine to each class, known classes first; the margin is subtracted for unknown classes.
        """
        prototypes = F.normalize(torch.cat([self.known, self.unknown.detach()]), dim=1)
        cosines = best_of_synonyms(
            torch.einsum("bdhw,pd->bphw", embeddings, prototypes), self._sizes
        )
        return torch.cat(
            [cosines[:, : self.num_known], cosines[:, self.num_known :] - self.lead], dim=1
        )
