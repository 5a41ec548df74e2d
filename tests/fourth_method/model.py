"""CLIPpy: image-text contrast of the largest patch embeddings (arXiv:2210.09996)."""

from __future__ import annotations

from jaxtyping import Float
from maskfree.methods.clippy.batch import CLIPpyBatch
from torch import Tensor
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.nn.contrastive_objective import ContrastiveObjective
from maskfree.nn.dual_encoder import ImageProjector, TextProjector
from maskfree.types import Groups, Losses, Tokens


class CLIPpy(Method):
    """Dual encoder whose image embedding is the maximum over the patches."""

    def __init__(self, *, image: ImageProjector, text: TextProjector, cross: ContrastiveObjective):
        super().__init__()
        self.image = image
        self.text = text
        self.cross = cross

    def forward(self, batch: CLIPpyBatch) -> Losses:
        """Contrast photos and captions."""
        if batch.captions is None:
            raise ValueError("CLIPpy learns from captions, and the photos have none")

        overall = F.normalize(self.image(batch.images).amax((2, 3)), dim=-1)
        return self.cross(overall, self.encode_text(batch.captions), self.gather)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own."""
        return Groups.of_pixels(self.image(images))

    @property
    def logit_scale(self) -> float:
        """Learned inverse temperature."""
        return self.cross.scale

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.image.encoder.patch_size

    def after_step(self, step: int, steps: int) -> None:
        """Clamp the temperature."""
        self.cross.after_step()
