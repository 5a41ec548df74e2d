"""Recipes of OVSegmentor."""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.config import DataConfig, ViewConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes.toy import TOY_TEXT, TOY_TRAINING
from maskfree.recipes.vilseg import MINILM
from maskfree.text.templates import TEMPLATES

HEAD = ProjectionConfig(kind="batchnorm_mlp", hidden=4096)
"""Projection of the released code, used for images, texts and entities."""


def ovsegmentor() -> Recipe:
    """OVSegmentor as in the paper: ViT-B/16 and BERT on CC4M, 2048 pairs per step, 40 epochs.

    The last ten epochs have the mask loss. `maskfree prepare entities` makes the entity index; set
    yours with --data.index.

    Returns:
        Settings of the run.

    Source: arXiv:2301.09121, section 4.1; the warm-up, gradient clipping and projections, which it
    does not give, are the released code's.
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
            # The index says how many pairs an epoch has; the warm-up is the released code's.
            steps=0,
            epochs=(2, 40),
            batch_size=2048,
            learning_rate=3.2e-4,
            weight_decay=0.5,
            # As in the released code.
            clip_norm=5.0,
            precision="bf16-mixed",
            log_every=50,
            save_every=2000,
        ),
        inference=AUTHORS_INFERENCE,
    )


def ovsegmentor_vit_small() -> Recipe:
    """OVSegmentor of the paper with a ViT-S/16, for its comparison by backbone (Table 1).

    Returns:
        Settings of the run.

    Source: arXiv:2301.09121, Table 1.

    Differs: BERT is the text encoder, as the paper says; the released code names RoBERTa for it
    (`text.family` "roberta").
    """
    paper = ovsegmentor()
    method = paper.method
    assert isinstance(method, OVSegmentorConfig)

    small = replace(method.image, dim=384, num_heads=6, weights="facebook/dino-vits16")
    return replace(paper, name="ovsegmentor-vit-small", method=replace(method, image=small))


def ovsegmentor_cc12m() -> Recipe:
    """OVSegmentor of the paper on all of CC12M, whose index has more entities (Table 7).

    `maskfree prepare entities --entities auto` finds them; the list lies in the index.

    Returns:
        Settings of the run.

    Source: arXiv:2301.09121, section 4.3, "Scalability".
    """
    paper = ovsegmentor()
    index = "cc12m-nouns"

    return replace(
        paper,
        name="ovsegmentor-cc12m",
        method=replace(paper.method, entities=f"{index}/entities.txt"),
        data=replace(paper.data, index=index),
    )


def ovsegmentor_released() -> Recipe:
    """First stage of the released code: 30 epochs without the mask loss.

    `ovsegmentor_released_masks` continues from it.

    Returns:
        Settings of the run.

    Differs: answers keep the whole of their template, all entities can be masked, every epoch has
    another order, and photos are augmented by brightness, contrast, saturation and hue instead of
    RandAugment and erasing.
    """
    paper = ovsegmentor()

    return replace(
        paper,
        name="ovsegmentor-released",
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(
                form="released",
                num_heads=8,
                num_tokens=64,
                weights="facebook/dino-vitb16",
            ),
            text=TextEncoderConfig(family="bert", weights="bert-base-uncased", pooling="first"),
            image_projection=HEAD,
            text_projection=HEAD,
            entity=EntityConfig(bridge=HEAD),
            masks=None,
            form="released",
        ),
        train=replace(
            paper.train,
            epochs=(2, 30),
            weight_decay=0.05,
            final_rate=0.25,
            precision="32-true",
        ),
    )


def ovsegmentor_released_masks() -> Recipe:
    """Second stage of the released code: ten epochs with the mask loss and a frozen text encoder.

    It starts from the run of the first stage.

    Returns:
        Settings of the run.
    """
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
                # The mask loss is on from the first step.
                start=0.0,
                matching="released",
            ),
            # No color augmentation in this stage.
            views=ViewConfig(scale=(0.4, 1.0), jitter=(0.0, 0.0, 0.0, 0.0)),
        ),
        train=replace(
            first.train,
            # Half the batch size of the first stage, and a far lower learning rate.
            epochs=(0, 10),
            batch_size=1024,
            learning_rate=2.5e-6,
            final_rate=0.1,
        ),
    )


def ovsegmentor_pocket() -> Recipe:
    """Small OVSegmentor for two CPU cores, trained from the bundled model on Flickr8k.

    A grouping transformer on the bundled model's pixel embeddings, with its text encoder. Set your
    copies with --data.shards and --data.index.

    Returns:
        Settings of the run.
    """
    return Recipe(
        name="ovsegmentor-pocket",
        init="pocket",
        init_names=(("image.encoder", "image.stem"), ("image.projection", "image.widen")),
        method=OVSegmentorConfig(
            image=GroupingEncoderConfig(
                stem=ImageEncoderConfig(family="mobilenet_v2", output_stride=16),
                form="light",
                dim=384,
                num_heads=6,
                depths=(1, 1),
                drop_path=0.0,
            ),
            text=TextEncoderConfig(family="bert", architecture=MINILM, frozen=True),
            tokenizer=None,
            embed_dim=384,
            image_projection=ProjectionConfig(kind="near"),
            text_projection=ProjectionConfig(kind="near"),
            entity=EntityConfig(weight=2.0, templates="photo", num_heads=6),
            masks=MaskConfig(weight=0.3, start=0.3, matching="one_way"),
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
            # The parts of the bundled model stay frozen to the last step.
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
        init_without=("tag_scores",),
    )


def ovsegmentor_debug() -> Recipe:
    """OVSegmentor on colored shapes that the run draws itself: all three losses fall in seconds.

    Returns:
        Settings of the run.
    """
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
            entity=EntityConfig(templates="photo", num_heads=2),
            # Early and heavy enough that a short run shows it fall.
            masks=MaskConfig(weight=0.5, start=0.3),
            views=ViewConfig(side_px=64, scale=(0.4, 1.0)),
        ),
        data=DataConfig(shapes=400, index="shapes", workers=0, shuffle_buffer=100),
        train=TOY_TRAINING,
    )
