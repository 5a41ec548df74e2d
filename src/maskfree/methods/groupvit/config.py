"""Settings of GroupViT."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from maskfree.config.rules import OutsideName, check
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig
from maskfree.nn.encoder_config import Value

if TYPE_CHECKING:
    from maskfree.methods.groupvit.model import GroupViT, GroupViTTransform
    from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class GroupViTConfig(MethodConfig):
    """Which GroupViT: the published ViT-S by default."""

    weights: OutsideName | None = "nvidia/groupvit-gcc-yfcc"
    """Folder or Hugging Face name; None is random."""
    vision: dict[str, Value] = field(default_factory=dict)
    """Overrides fields of transformers' GroupViTVisionConfig."""
    text: dict[str, Value] = field(default_factory=dict)
    """Overrides fields of transformers' GroupViTTextConfig."""
    projections: dict[str, Value] = field(default_factory=dict)
    """Overrides the other fields of transformers' GroupViTConfig."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """What of a photo a training step sees."""

    def build(self) -> GroupViT:
        """Make the method; weights are read if named.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: a value or tensor does not fit, or the view does not divide into patches.
        """
        from maskfree.methods.groupvit.model import GroupViT
        from maskfree.nn.pretrained import make_tower

        check(self)
        configuration = self._configuration()
        side_px, patch_px = self.views.side_px, configuration.vision_config.patch_size
        if side_px % patch_px:
            raise ValueError(
                f"a view of {side_px} px does not divide into patches of {patch_px} px"
            )
        return GroupViT(make_tower("GroupViTModel", configuration, self.weights))

    def build_transform(self, tokenizer: Tokenizer | None) -> GroupViTTransform:
        """Make the view of a photo and draw a caption; photos without captions need no TOKENIZER.

        Raises:
            ValueError: TOKENIZER gives longer texts or more different tokens than the text encoder takes.
        """
        from maskfree.methods.groupvit.model import GroupViTTransform

        if tokenizer is not None:
            self.check_tokenizer(tokenizer.vocabulary_size, tokenizer.max_length)
        return GroupViTTransform(tokenizer, self.views)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """See that the text encoder takes a tokenizer's output."""
        text = self._configuration().text_config
        if vocabulary_size > text.vocab_size or max_length > text.max_position_embeddings:
            raise ValueError(
                f"the tokenizer has {vocabulary_size} tokens and cuts texts at {max_length}: the text encoder takes "
                f"{text.vocab_size} and {text.max_position_embeddings}"
            )

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        if self.weights is None:
            raise ValueError("no tokenizer: start from a checkpoint, or set weights")
        return self.weights

    def without_pretrained(self) -> GroupViTConfig:
        """The same architecture with every value spelled out and no outside weights."""
        from maskfree.nn.pretrained import plain_fields

        configuration = self._configuration()
        return replace(
            self,
            weights=None,
            vision=plain_fields(configuration.vision_config),
            text=plain_fields(configuration.text_config),
            projections=plain_fields(configuration),
        )

    def for_inference(self) -> GroupViTConfig:
        """`without_pretrained`: nothing of it is for training only."""
        return self.without_pretrained()

    def _configuration(self) -> Any:
        from maskfree.nn.pretrained import read_configuration

        whole: Any = read_configuration("GroupViTConfig", self.weights, self.projections)
        whole.vision_config = read_configuration("GroupViTVisionConfig", self.weights, self.vision)
        whole.text_config = read_configuration("GroupViTTextConfig", self.weights, self.text)
        return whole
