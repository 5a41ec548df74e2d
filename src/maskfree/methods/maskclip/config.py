"""Configuration of MaskCLIP and its variants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NoReturn

from maskfree.config.rules import Momentum, PositiveFraction, Width, check
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.maskclip.model import MaskCLIP
    from maskfree.text.tokenize import Tokenizer


RegionKind = Literal["contours", "slic", "felzenszwalb"]
"""Division of photos into regions without labels, as of `regions.region_maps`."""

UNTRAINED = (
    "MaskCLIP is not trained: it labels with the weights of a CLIP; train a student of it (clips4)"
)


@dataclass(frozen=True)
class MaskCLIPConfig(MethodConfig):
    """Configuration of the MaskCLIP method.

    `maskclip_config` creates one from published weights.
    """

    image: DenseClipConfig = field(default_factory=DenseClipConfig)
    """CLIP image encoder and the attention of its last block."""
    text: TextEncoderConfig = field(default_factory=lambda: TextEncoderConfig(frozen=True))
    """CLIP text encoder of the same model family."""
    text_projection: ProjectionConfig = field(default_factory=lambda: ProjectionConfig(bias=False))
    """Text projection; CLIP has no bias, SigLIP has one."""
    embed_dim: Width = 512
    """Dimension of the joint image-text embedding space."""
    prompt_denoise: PositiveFraction | None = None
    """Drop classes whose probability exceeds this value on no patch; the published value is 0.5,
    None keeps all."""
    key_smoothing: PositiveFraction | None = None
    """Smooth the scores of patches with confidence below this value over patches with similar keys;
    the published value is 1 (all patches), None is off."""
    proxy: ImageEncoderConfig | None = None
    """Encoder, such as DINO, whose similar patches attend to each other in a last block with
    attention "proxy"; scores lie on its patch grid. None: the CLIP's own attention."""
    scope: RegionKind | None = None
    """Regions that a patch attends within, found in each photo or window; those whose patches look
    alike to the proxy are one. None: patches that look alike attend to each other."""
    propagation: Momentum = 0.0
    """Part of a patch's scores that comes from patches that are close and look alike to the proxy;
    the published value is 0.95, 0 is off."""

    def build(self) -> MaskCLIP:
        """Build the method; weights are loaded if the config names them.

        The text projection is read from the weights of the text encoder.

        Returns:
            The method.

        Raises:
            FileNotFoundError: The named weights do not exist.
            ValueError: A value or tensor does not fit, or the encoders are of different families.
        """
        # Imported here, so that reading a config does not import the networks.
        from maskfree.methods.maskclip.model import MaskCLIP
        from maskfree.nn.clip_weights import read_text_end
        from maskfree.nn.dual_encoder import TextProjector

        check(self)
        # CLIP's ResNets and ViTs have the same kind of text encoder.
        if self.image.family.removesuffix("_resnet") != self.text.family:
            raise ValueError(
                f"the image tower is a {self.image.family}'s, the text tower a {self.text.family}'s"
            )

        self._check_proxy()

        # Both encoders must end in the same space.
        image, encoder = self.image.build(), self.text.build()
        if image.dim != self.embed_dim:
            raise ValueError(
                f"embed_dim is {self.embed_dim}: the image tower's embeddings have {image.dim}"
            )

        proxy = None
        if self.proxy is not None:
            proxy = self.proxy.build()

        projection = self.text_projection.build_for_vectors(encoder.channels, self.embed_dim)
        method = MaskCLIP(
            image=image,
            text=TextProjector(encoder, projection),
            prompt_denoise=self.prompt_denoise,
            key_smoothing=self.key_smoothing,
            proxy=proxy,
            scope=self.scope,
            propagation=self.propagation,
        )

        # Projection and temperature belong to the weights of the text encoder.
        if self.text.weights is not None:
            weights, log_scale = read_text_end(self.text.weights, self.text.family)
            projection.load_state_dict(weights)
            method.log_scale.copy_(log_scale)

        return method

    def build_transform(self, tokenizer: Tokenizer | None) -> NoReturn:
        """Raise an error, since MaskCLIP is not trained.

        Args:
            tokenizer: Unused.

        Raises:
            ValueError: Always.
        """
        raise ValueError(UNTRAINED)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the text encoder accepts a tokenizer's output.

        Args:
            vocabulary_size: Number of token ids of the tokenizer.
            max_length: Longest token sequence that the tokenizer returns.

        Raises:
            ValueError: The text encoder has fewer token or position embeddings.
        """
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Name the tokenizer to load when training starts.

        Returns:
            Folder or Hugging Face name of the tokenizer.

        Raises:
            ValueError: The config names no tokenizer.
        """
        if self.text.weights is None:
            raise ValueError("no tokenizer: set weights of the text encoder that come with one")
        return self.text.weights

    def student_parts(self) -> StudentParts:
        """Return what distillation and self-training may take over into a student.

        Returns:
            The text side: a student cannot have CLIP's last block as MaskCLIP reads it.
        """
        return StudentParts(
            text=self.text,
            text_projection=self.text_projection,
            embed_dim=self.embed_dim,
            # The modality gap of CLIP (arXiv:2203.02053).
            modality_gap=True,
        )

    def without_pretrained(self) -> MaskCLIPConfig:
        """Make the config independent of pretrained weights.

        Returns:
            The same architecture with every value spelled out and no external weights.
        """
        proxy = None
        if self.proxy is not None:
            proxy = self.proxy.without_pretrained()

        return replace(
            self,
            image=self.image.without_pretrained(),
            text=self.text.without_pretrained(),
            proxy=proxy,
        )

    def for_inference(self) -> MaskCLIPConfig:
        """Drop everything that only training uses, which is nothing here.

        Returns:
            `without_pretrained`.
        """
        return self.without_pretrained()

    def _check_proxy(self) -> None:
        """Raise ValueError if the proxy and the settings that use it do not fit each other."""
        attention = self.image.last_block.attention
        if self.scope is not None and attention != "proxy":
            raise ValueError("scope limits the attention of a proxy, and there is none")

        if self.proxy is None:
            if attention == "proxy":
                raise ValueError("the last block's attention is 'proxy': set proxy, such as a DINO")
            if self.propagation:
                raise ValueError("propagation needs features of a proxy: set proxy, such as a DINO")
            return

        if attention != "proxy" and not self.propagation:
            raise ValueError(
                f"proxy has no effect: the last block's attention is {attention!r}, not 'proxy', "
                "and propagation is 0"
            )
        if self.image.family == "clip_resnet":
            raise ValueError("a clip_resnet has no transformer block, which a proxy needs")
        if self.key_smoothing is not None:
            raise ValueError("key_smoothing needs the CLIP's own patch grid: leave it out")
