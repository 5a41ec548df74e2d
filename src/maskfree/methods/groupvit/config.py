"""Configuration of GroupViT."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from maskfree.config.rules import CountOrZero, OutsideName, check
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig
from maskfree.nn.encoder_config import Value

if TYPE_CHECKING:
    from maskfree.methods.groupvit.model import GroupViT
    from maskfree.methods.groupvit.transform import GroupViTTransform
    from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class GroupViTConfig(MethodConfig):
    """Configuration of the GroupViT method; the default is the published ViT-S."""

    weights: OutsideName | None = "nvidia/groupvit-gcc-yfcc"
    """Folder or Hugging Face name of pretrained weights; None initializes randomly."""
    vision: dict[str, Value] = field(default_factory=dict)
    """Overrides of fields of transformers' GroupViTVisionConfig."""
    text: dict[str, Value] = field(default_factory=dict)
    """Overrides of fields of transformers' GroupViTTextConfig."""
    projections: dict[str, Value] = field(default_factory=dict)
    """Overrides of the remaining fields of transformers' GroupViTConfig."""
    tokenizer: OutsideName | None = None
    """Folder or Hugging Face name of the tokenizer; None takes the one of the weights."""
    num_labels: CountOrZero = 0
    """Largest number of nouns of a caption in the multi-label contrast; the paper's is 3. 0 turns
    this loss off."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Size and augmentation of the training view."""

    def build(self) -> GroupViT:
        """Build the method; weights are loaded if the config names them.

        Returns:
            The method.

        Raises:
            FileNotFoundError: The named weights do not exist.
            ValueError: A value or tensor does not fit, or the view does not divide into patches.
        """
        # Imported here, so that reading a config does not import the networks.
        from maskfree.methods.groupvit.model import GroupViT
        from maskfree.nn.pretrained import make_tower

        check(self)

        # The patch size is known only after the overrides are applied.
        configuration = self._configuration()
        side_px, patch_px = self.views.side_px, configuration.vision_config.patch_size
        if side_px % patch_px:
            raise ValueError(
                f"a view of {side_px} px does not divide into patches of {patch_px} px"
            )

        return GroupViT(make_tower("GroupViTModel", configuration, self.weights))

    def build_transform(self, tokenizer: Tokenizer | None) -> GroupViTTransform:
        """Build the training transform of this method.

        Args:
            tokenizer: Tokenizer for captions; None if the photos have no captions.

        Returns:
            The transform that turns a photo into training views and collates batches.

        Raises:
            ValueError: The tokenizer's maximum length or vocabulary exceeds what the text
                encoder takes.
        """
        from maskfree.methods.groupvit.transform import GroupViTTransform

        if tokenizer is not None:
            self.check_tokenizer(tokenizer.vocabulary_size, tokenizer.max_length)
        return GroupViTTransform(tokenizer, self.views, self.num_labels)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the text encoder accepts a tokenizer's output.

        Args:
            vocabulary_size: Number of token ids of the tokenizer.
            max_length: Longest token sequence that the tokenizer returns.

        Raises:
            ValueError: The text encoder has fewer token or position embeddings.
        """
        text = self._configuration().text_config
        if vocabulary_size > text.vocab_size or max_length > text.max_position_embeddings:
            raise ValueError(
                f"the tokenizer has {vocabulary_size} tokens and cuts texts at {max_length}: "
                "the text encoder takes "
                f"{text.vocab_size} and {text.max_position_embeddings}"
            )

    def tokenizer_source(self) -> str:
        """Name the tokenizer to load when training starts.

        Returns:
            Folder or Hugging Face name of the tokenizer.

        Raises:
            ValueError: The config names no tokenizer.
        """
        source = self.tokenizer or self.weights
        if source is None:
            raise ValueError("no tokenizer: start from a checkpoint, or set tokenizer or weights")
        return source

    def extras(self) -> tuple[str, ...]:
        """List the optional dependencies of this config.

        Returns:
            The extra that finds nouns in captions, if they are trained on.
        """
        if self.num_labels:
            return ("entities",)
        return ()

    def student_parts(self) -> None:
        """Return nothing: the encoders of transformers' GroupViT are not of a form to take over."""

    def without_pretrained(self) -> GroupViTConfig:
        """Make the config independent of pretrained weights.

        Returns:
            The same architecture with every value spelled out and no external weights.
        """
        from maskfree.nn.configurations import plain_fields

        # Written out, so that a checkpoint loads without the original weights.
        configuration = self._configuration()

        return replace(
            self,
            weights=None,
            tokenizer=None,
            vision=plain_fields(configuration.vision_config),
            text=plain_fields(configuration.text_config),
            projections=plain_fields(configuration),
        )

    def for_inference(self) -> GroupViTConfig:
        """Drop the multi-label contrast, which only training uses.

        Returns:
            `without_pretrained` without labels.
        """
        return replace(self.without_pretrained(), num_labels=0)

    def _configuration(self) -> Any:
        """The transformers configuration of the weights, with the overrides applied."""
        from maskfree.nn.configurations import read_configuration

        whole: Any = read_configuration("GroupViTConfig", self.weights, self.projections)
        # Read by themselves, so that overrides keep the other values of the weights.
        whole.vision_config = read_configuration("GroupViTVisionConfig", self.weights, self.vision)
        whole.text_config = read_configuration("GroupViTTextConfig", self.weights, self.text)
        return whole
