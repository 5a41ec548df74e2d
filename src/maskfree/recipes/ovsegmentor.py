"""Runs of OVSegmentor."""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.config import DataConfig, ViewConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.losses.mask_arithmetic import RELEASED
from maskfree.methods.ovsegmentor.config import EntityConfig, MaskConfig, OVSegmentorConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes.toy import TOY_TEXT, TOY_TRAINING
from maskfree.recipes.vilseg import MINILM
from maskfree.text.templates import TEMPLATES

PAIRS = 4_300_000  # of CC12M, with an entity: CC4M
HEAD = ProjectionConfig(kind="batchnorm_mlp", hidden=4096)


def ovsegmentor() -> Recipe:
    """The paper's: ViT-B/16 and BERT on CC4M, 2048 pairs a step, 40 epochs, of which the last ten with L_mask.

    Source: arXiv:2301.09121, section 4.1; the warm-up, the longest gradient and the projections, of which it says
    nothing, are the released code's. `maskfree prepare entities` makes the index; name yours with --data.index.
    """
    return Recipe(
        name="ovsegmentor",
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(weights="facebook/dino-vitb16"),
            text=TextEncoderConfig(family="bert", weights="bert-base-uncased", pooling="last"),
            image_projection=HEAD,
            text_projection=HEAD,
            entity=EntityConfig(bridge=HEAD),
        ),
        data=DataConfig(shards=("cc12m/{00000..01242}.tar",), index="cc12m-entities", workers=8),
        train=TrainConfig(
            steps=40 * PAIRS // 2048,
            batch_size=2048,
            learning_rate=3.2e-4,
            weight_decay=0.5,
            warm_up_steps=2 * PAIRS // 2048,
            clip_norm=5.0,
            precision="bf16-mixed",
            log_every=50,
            save_every=2000,
        ),
        inference=AUTHORS_INFERENCE,
    )


def ovsegmentor_released() -> Recipe:
    """The released code's first stage, 30 epochs without L_mask; `ovsegmentor_released_masks` goes on from it.

    Differs: answers keep the whole of their template, all entities can be masked, every epoch has another order, and
    photos are recolored by brightness, contrast, saturation and hue instead of RandAugment and erasing.
    """
    paper = ovsegmentor()
    return replace(
        paper,
        name="ovsegmentor-released",
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(
                num_heads=8,
                num_tokens=64,
                cross_attention=True,
                channel_mlp=True,
                extra_mass=1.0,
                keep_patches=False,
                weights="facebook/dino-vitb16",
            ),
            text=TextEncoderConfig(family="bert", weights="bert-base-uncased", pooling="first"),
            image_projection=HEAD,
            text_projection=HEAD,
            entity=EntityConfig(bridge=HEAD, all_questions=True, see_padding=True),
            masks=None,
            observe_tokens=True,
        ),
        train=replace(
            paper.train,
            steps=30 * PAIRS // 2048,
            weight_decay=0.05,
            final_rate=0.25,
            precision="32-true",
        ),
    )


def ovsegmentor_released_masks() -> Recipe:
    """The released code's second stage: ten epochs with L_mask from the first stage's run, the text encoder frozen."""
    first = ovsegmentor_released()
    method = first.method
    assert isinstance(method, OVSegmentorConfig)
    return replace(
        first,
        name="ovsegmentor-released",
        init="runs/ovsegmentor_released",
        method=replace(
            method,
            text=replace(method.text, frozen=True),
            masks=MaskConfig(
                start=0.0,
                symmetric=False,
                keys="target",
                others="without gradient",
                arithmetic=RELEASED,
            ),
            views=ViewConfig(scale=(0.4, 1.0), jitter=(0.0, 0.0, 0.0, 0.0)),
        ),
        train=replace(
            first.train,
            steps=10 * PAIRS // 1024,
            batch_size=1024,
            learning_rate=2.5e-6,
            warm_up_steps=0,
            final_rate=0.1,
        ),
    )


def ovsegmentor_pocket() -> Recipe:
    """A small one for two cores: a transformer on the bundled model's pixel embeddings, its text encoder, and Flickr8k.

    Name your copies with --data.shards and --data.index.
    """
    return Recipe(
        name="ovsegmentor-pocket",
        init="pocket",
        init_names=(("image.encoder", "image.stem"), ("image.projection", "image.widen")),
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(
                stem=ImageEncoderConfig(family="mobilenet_v2", output_stride=16),
                widen=ProjectionConfig(kind="words"),
                patch_norm=True,
                dim=384,
                num_heads=6,
                depths=(1, 1),
                keep_patches=False,
                start="likeness",
                drop_path=0.0,
            ),
            text=TextEncoderConfig(family="bert", architecture=MINILM, frozen=True),
            tokenizer=None,
            embed_dim=384,
            image_projection=ProjectionConfig(kind="near"),
            text_projection=ProjectionConfig(kind="near"),
            entity=EntityConfig(weight=2.0, templates="photo", num_heads=6),
            masks=MaskConfig(weight=0.3, start=0.3, symmetric=False, keys="target"),
            views=ViewConfig(side_px=224, scale=(0.3, 1.0)),
        ),
        data=DataConfig(
            shards=("flickr8k/train-{000..005}.tar",), index="flickr8k-entities", workers=1
        ),
        train=TrainConfig(
            steps=200,
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=0.05,
            warm_up_steps=20,
            frozen=("image.stem", "image.widen", "text"),
            frozen_steps=200,
            clip_norm=5.0,
            average_decay=0.98,
            precision="bf16-mixed",
            log_every=10,
            save_every=100,
            storage="int8",
        ),
        templates=TEMPLATES["ensemble"],
        init_without=("votes",),
    )


def ovsegmentor_debug() -> Recipe:
    """Seconds, and nothing from outside: toy towers learn to name colored shapes, which the run draws for itself."""
    return Recipe(
        name="ovsegmentor-debug",
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(
                patch_px=8,
                side_px=64,
                dim=48,
                num_heads=3,
                depths=(2, 1),
                num_groups=4,
                num_tokens=4,
                drop_path=0.0,
            ),
            text=TOY_TEXT,
            tokenizer=None,
            embed_dim=32,
            cross=ContrastiveConfig(),
            entities="shapes",
            entity=EntityConfig(num_heads=2),
            views=ViewConfig(side_px=64, scale=(0.4, 1.0)),
        ),
        data=DataConfig(shapes=400, index="shapes", workers=0, shuffle_buffer=100),
        train=TOY_TRAINING,
    )
