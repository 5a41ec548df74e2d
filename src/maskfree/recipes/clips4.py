"""Recipes of CLIP-S4 and of its baseline MaskCLIP+."""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.config import DataConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.inference.config import Inference
from maskfree.method_config import StudentParts
from maskfree.methods.clips4.config import CLIPS4Config, PairConfig
from maskfree.methods.clips4.objectives_config import PixelSegmentConfig, SemanticConsistencyConfig
from maskfree.nn.deeplab_config import CorrectionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes.toy import TOY_TEXT, TOY_TRAINING
from maskfree.recipes.vilseg import MINILM
from maskfree.text.templates import TEMPLATES


def clips4() -> Recipe:
    """CLIP-S4 as in the paper: PSPNet on a dilated ResNet-50, taught by CLIP, 8 photos per step.

    20,000 steps, as for all data sets but COCO-Stuff, which has 80,000. Set the teacher's
    checkpoint with --init, photos with --data.images, and the prepared inputs with
    --method.segments, --method.teacher and --method.prototypes.

    Returns:
        Settings of the run.

    Source: CLIP-S4 (arXiv:2305.01040), section 4.2. The paper does not give the optimizer, weight
    decay, warm-up and learning rate of the encoder.
    """
    return Recipe(
        name="clips4",
        method=CLIPS4Config(
            segments="segments",
            teacher="teacher",
            prototypes="prototypes.safetensors",
            # Denser than the default of 28; the paper gives no number.
            grid=56,
        ),
        data=DataConfig(images=("photos",), workers=8),
        train=TrainConfig(
            steps=20_000,
            batch_size=8,
            learning_rate=1e-3,
            weight_decay=5e-4,
            warm_up_steps=100,
            schedule="polynomial",
            # The encoder learns at a tenth of the rate, as usual for PSPNet.
            lr_multipliers=(("image.encoder", 0.1),),
            precision="bf16-mixed",
            log_every=50,
            save_every=1000,
        ),
        templates=TEMPLATES["maskclip"],
        # Of the teacher, the student takes the text side only.
        init_without=("image", "log_scale"),
    )


def clips4_pocket() -> Recipe:
    """Student of about the bundled model's size and speed, trained on photos without labels.

    It is initialized from its teacher.

    Prepare segments, teacher features and prototypes of your photos, and set them with
    --method.segments, --method.teacher and --method.prototypes.

    Returns:
        Settings of the run.

    Differs: what suits few steps and a teacher whose text and pixel embeddings lie close together
    (docs/methods/clips4.md).
    """
    return Recipe(
        name="clips4-pocket",
        method=CLIPS4Config(
            image=ImageEncoderConfig(family="mobilenet_v2", output_stride=16),
            image_projection=ProjectionConfig(kind="classifier_mixture"),
            # The correction starts as zero, so that the student starts as its teacher.
            correction=CorrectionConfig(),
            text=TextEncoderConfig(family="bert", architecture=MINILM, frozen=True),
            text_projection=ProjectionConfig(kind="near"),
            embed_dim=384,
            segments="flickr8k-segments",
            teacher="flickr8k-teacher",
            prototypes="prototypes.safetensors",
            # Only some of the pixels are contrasted, for speed.
            contrast=PixelSegmentConfig(weight=0.3, thin=4),
            # Flickr8k shows too few of some classes for prototypes of segments.
            semantic=SemanticConsistencyConfig(known="names", soft=True, class_prior=1.0),
            # At the scale at which the teacher sees photos, and close to their colors.
            views=PairConfig(scale=(0.25, 0.8), colors="mild"),
        ),
        data=DataConfig(shards=("flickr8k/train-{000..005}.tar",), workers=1),
        train=TrainConfig(
            steps=200,
            batch_size=16,
            learning_rate=1e-3,
            weight_decay=1e-3,
            warm_up_steps=20,
            schedule="polynomial",
            # Training all of it at full rate forgets what the teacher knows.
            lr_multipliers=(("image.projection.known", 0.05),),
            # The encoder stays frozen to the last step.
            frozen=("image.encoder",),
            frozen_steps=200,
            average_decay=0.98,
            precision="bf16-mixed",
            log_every=10,
            save_every=100,
            storage="int8",
        ),
        templates=TEMPLATES["ensemble"],
        inference=Inference(smooth=5),
        init="pocket",
        # The teacher's projection is corrected; its other heads are left out.
        init_names=(("image.projection", "image.projection.known"),),
        init_without=("cross", "tag_scores"),
    )


def clips4_student(
    parts: StudentParts,
    encoder: ImageEncoderConfig,
    *,
    new_projection: ProjectionConfig | None,
    num_unknown: int,
    crop_px: int,
) -> Recipe:
    """CLIP-S4 student of any method that states its `student_parts`.

    The prepared inputs, the teacher and the data are still those of `clips4_pocket`.

    Args:
        parts: Parts of the teacher.
        encoder: Image encoder of the student.
        new_projection: Image projection of the student; None takes the teacher's, with a
            correction.
        num_unknown: Number of unknown classes.
        crop_px: Side of a training view, in pixels.

    Returns:
        Settings of the run.
    """
    pocket = clips4_pocket()
    method = pocket.method
    assert isinstance(method, CLIPS4Config) and method.semantic is not None

    # A teacher that is itself such a student passes its correction on.
    projection, correction = new_projection, None
    if projection is None:
        assert parts.image_projection is not None, "the teacher has no projection to take"
        projection, correction = parts.image_projection, parts.correction or method.correction

    # Across a modality gap known classes are prototypes of segments, as in the paper.
    semantic = method.semantic
    if parts.modality_gap:
        semantic = SemanticConsistencyConfig()

    student = replace(
        method,
        image=encoder,
        image_projection=projection,
        correction=correction,
        text=replace(parts.text, frozen=True),
        text_projection=parts.text_projection,
        embed_dim=parts.embed_dim,
        semantic=replace(semantic, num_unknown=num_unknown),
        views=replace(method.views, side_px=crop_px),
    )
    return replace(pocket, method=student)


def maskclip_plus_pocket() -> Recipe:
    """MaskCLIP+, the baseline of `clips4_pocket`: learns the teacher's pseudo label of each pixel.

    Returns:
        Settings of the run.

    Source: arXiv:2112.01071, section 3.3.
    """
    whole = clips4_pocket()
    method = whole.method
    assert isinstance(method, CLIPS4Config)

    # All losses of CLIP-S4 are replaced by that of the pseudo labels.
    alone = replace(
        method,
        contrast=None,
        embedding_weight=None,
        semantic=None,
        pseudo_label_weight=1.0,
        segments=None,
    )

    return replace(whole, name="maskclip-plus-pocket", method=alone)


def clips4_debug() -> Recipe:
    """Pixel-segment contrast on colored shapes that the run draws itself, in seconds.

    Each photo is one region.

    Returns:
        Settings of the run.
    """
    return Recipe(
        name="clips4-debug",
        method=CLIPS4Config(
            image=ImageEncoderConfig(
                family="vit",
                architecture={
                    "hidden_size": 48,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 3,
                    "intermediate_size": 96,
                    "image_size": 64,
                    "patch_size": 8,
                },
            ),
            image_projection=ProjectionConfig("pyramid", hidden=32),
            text=replace(TOY_TEXT, frozen=True),
            embed_dim=32,
            embedding_weight=None,
            semantic=None,
            num_segments=9,
            grid=16,
            views=PairConfig(side_px=64),
        ),
        data=DataConfig(shapes=400, workers=0, shuffle_buffer=100),
        train=replace(TOY_TRAINING, steps=60),
    )
