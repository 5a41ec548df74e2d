"""Settings of MaskCLIP and its successors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from maskfree.config.rules import PositiveFraction, Width, check
from maskfree.method_config import MethodConfig
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.maskclip.model import MaskCLIP
    from maskfree.text.tokenize import Tokenizer


UNTRAINED = (
    "MaskCLIP is not trained: it labels with the weights of a CLIP; train a student of it (clips4)"
)


@dataclass(frozen=True)
class MaskCLIPConfig(MethodConfig):
    """Which CLIP, and how it is read. `maskclip_config` makes one of published weights."""

    image: DenseClipConfig = field(default_factory=DenseClipConfig)
    """The image tower and its last block."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """The text tower, of the same family."""
    text_projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig(bias=False))
    """CLIP's has no bias, SigLIP's has one."""
    embed_dim: Width = 512
    """Of the space that both towers share."""
    prompt_denoise: PositiveFraction | None = None
    """Classes go that no patch is so sure of, in a softmax over the words; the published value is 0.5."""
    key_smoothing: PositiveFraction | None = None
    """Patches less sure than this take the mean of patches with like keys; the published value is 1, all patches."""

    def build(self) -> MaskCLIP:
        """Make the method; weights are read if named, those of the text projection where the text tower's are.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: a value or tensor does not fit, or the towers do not belong together.
        """
        from maskfree.methods.maskclip.model import MaskCLIP
        from maskfree.nn.clip_weights import read_text_end
        from maskfree.nn.dual_encoder import TextProjector

        check(self)
        if self.image.family.removesuffix("_resnet") != self.text.family:
            raise ValueError(
                f"the image tower is a {self.image.family}'s, the text tower a {self.text.family}'s"
            )
        image, encoder = self.image.build(), self.text.build()
        if image.dim != self.embed_dim:
            raise ValueError(
                f"embed_dim is {self.embed_dim}: the image tower's embeddings have {image.dim}"
            )
        projection = self.text_projection.build_for_vectors(encoder.channels, self.embed_dim)
        method = MaskCLIP(
            image=image,
            text=TextProjector(encoder, projection),
            prompt_denoise=self.prompt_denoise,
            key_smoothing=self.key_smoothing,
        )
        if self.text.weights is not None:
            weights, log_scale = read_text_end(self.text.weights, self.text.family)
            projection.load_state_dict(weights)
            method.log_scale.copy_(log_scale)
        return method

    def build_transform(self, tokenizer: Tokenizer | None) -> NoReturn:
        """Refuse.

        Raises:
            ValueError: always; there is nothing to train.
        """
        raise ValueError(UNTRAINED)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """See that the text encoder takes a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name of the tokenizer that belongs to the text weights."""
        if self.text.weights is None:
            raise ValueError("no tokenizer: set weights of the text encoder that come with one")
        return self.text.weights

    def without_pretrained(self) -> MaskCLIPConfig:
        """The same networks with every value spelled out and no outside weights."""
        return replace(
            self, image=self.image.without_pretrained(), text=self.text.without_pretrained()
        )

    def for_inference(self) -> MaskCLIPConfig:
        """`without_pretrained`: nothing of it is for training."""
        return self.without_pretrained()
