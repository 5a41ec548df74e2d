"""Recipes of ViL-Seg."""

from __future__ import annotations

from dataclasses import replace

from maskfree.data.config import DataConfig, ViewConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.inference.config import Inference
from maskfree.methods.vilseg.config import ClusterConfig, ViLSegConfig, VisionConfig
from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.methods.vilseg.words_config import WordsConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig, Value
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes.toy import TOY_TEXT, TOY_TRAINING
from maskfree.text.templates import TEMPLATES


def vilseg() -> Recipe:
    """ViL-Seg as in the paper: ViT-B/16 and CLIP's text transformer on CC12M, 768 pairs per step.

    The shards are in the format of img2dataset; set your own with --data.shards.

    Returns:
        Settings of the run.

    Source: arXiv:2207.08455, section 4.1; it gives no number of steps.
    """
    return Recipe(
        name="vilseg",
        method=ViLSegConfig(),
        data=DataConfig(shards=("cc12m/{00000..01242}.tar",), workers=8),
        train=TrainConfig(
            # 16 epochs of the 12 million pairs; the paper gives no number.
            steps=250_000,
            batch_size=768,
            learning_rate=5e-4,
            weight_decay=0.04,
            warm_up_steps=4000,
            # As in DINO, whose learning rate and weight decay the paper uses.
            clip_norm=3.0,
            precision="bf16-mixed",
            log_every=50,
            save_every=2000,
        ),
    )


def vilseg_pocket() -> Recipe:
    """Bundled model: MobileNetV2 and a frozen MiniLM on Flickr8k, small enough for two CPU cores.

    Set your own copies with --data.shards, --method.image.weights and --method.text.weights.

    Returns:
        Settings of the run.
    """
    return Recipe(
        name="pocket",
        method=ViLSegConfig(
            image=ImageEncoderConfig(
                family="mobilenet_v2", weights="mobilenet_v2_imagenet", output_stride=16
            ),
            text=TextEncoderConfig(family="bert", weights="all-minilm-l6-v2", frozen=True),
            tokenizer=None,
            embed_dim=384,
            image_projection=ProjectionConfig(kind="classifier_mixture"),
            text_projection=ProjectionConfig(kind="near"),
            cross=ContrastiveConfig(weight=0.25),
            vision=VisionConfig(weight=0.1, num_local_views=2),
            cluster=ClusterConfig(num_clusters=20, standardized=True),
            words=WordsConfig(),
            views=ViewConfig(side_px=256, scale=(0.3, 1.0)),
            grouping="pixels",
            assignment="soft",
        ),
        data=DataConfig(shards=("flickr8k/train-{000..005}.tar",), workers=1),
        train=TrainConfig(
            steps=330,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=1e-3,
            warm_up_steps=20,
            lr_multipliers=(
                ("image.encoder", 0.1),
                ("image.projection.classifier", 0.1),
                ("cluster", 3.0),
            ),
            # A frozen encoder is not disturbed by random projections, and is three times faster.
            frozen=("image.encoder",),
            frozen_steps=200,
            average_decay=0.98,
            precision="bf16-mixed",
            log_every=10,
            save_every=100,
            storage="int8",
        ),
        templates=TEMPLATES["ensemble"],
        inference=Inference(smooth=5, class_prior=1.0),
    )


MINILM: dict[str, Value] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""Architecture of MiniLM's text encoder with six layers."""


def vilseg_pocket_clusters() -> Recipe:
    """The bundled model's embeddings with the paper's online clustering head, without tag scores.

    The head is trained on the frozen embeddings; its gradient would not reach them anyway.

    It needs only photos with captions: set your own with --data.shards.

    Returns:
        Settings of the run.
    """
    whole = vilseg_pocket()
    method = whole.method
    assert isinstance(method, ViLSegConfig)

    return replace(
        whole,
        name="pocket-clusters",
        init="pocket",
        init_without=("tag_scores", "cluster"),
        method=replace(
            method,
            # The weights come from the bundled model.
            image=replace(method.image, weights=None),
            text=replace(method.text, weights=None, architecture=MINILM),
            vision=None,
            words=None,
            grouping="clusters",
        ),
        train=replace(
            whole.train,
            steps=400,
            batch_size=32,
            # Everything but the clustering head stays frozen to the last step.
            frozen=("image", "text", "cross"),
            frozen_steps=400,
            lr_multipliers=(("cluster", 3.0),),
        ),
    )


def vilseg_pocket_tags() -> Recipe:
    """Tag scores of the bundled model: its classifier and its head for nouns, trained on captions.

    The embedding stays as it is. It needs only photos with captions: set your own with
    --data.shards.

    Returns:
        Settings of the run.
    """
    whole = vilseg_pocket()
    method = whole.method
    assert isinstance(method, ViLSegConfig)

    return replace(
        whole,
        init="pocket",
        # A checkpoint of `vilseg_pocket` has a clustering head.
        init_without=("cluster",),
        method=replace(
            method,
            # The weights come from the bundled model.
            image=replace(method.image, weights=None),
            text=replace(method.text, weights=None, architecture=MINILM),
            vision=None,
            words=None,
            cluster=None,
            # The numbers are those of the lists in data/classes.
            tag_scores=TagScoresConfig(
                num_tag_names=1860,
                num_tag_kinds=1200,
                num_concepts=89,
                num_concept_names=283,
                distillation_weight=2.0,
            ),
        ),
        train=replace(
            whole.train,
            steps=400,
            batch_size=16,
            learning_rate=4e-4,
            weight_decay=0.02,
            warm_up_steps=30,
            # Everything but the tag scores stays frozen to the last step.
            frozen=("image", "text", "cross"),
            frozen_steps=400,
            # Pretrained weights learn more slowly than the head.
            lr_multipliers=(("tag_scores.encoder", 0.5), ("tag_scores.classifier", 0.5)),
        ),
        inference=Inference(side_px=384, smooth=3),
    )


def vilseg_debug() -> Recipe:
    """ViL-Seg on colored shapes that the run draws itself: trains toy encoders in seconds.

    Returns:
        Settings of the run.
    """
    return Recipe(
        name="vilseg-debug",
        method=ViLSegConfig(
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
            text=TOY_TEXT,
            tokenizer=None,
            embed_dim=32,
            vision=VisionConfig(num_local_views=2, local_side_px=32, out_dim=64),
            cluster=ClusterConfig(num_clusters=8),
            views=ViewConfig(side_px=64),
        ),
        data=DataConfig(shapes=400, workers=0, shuffle_buffer=100),
        train=TOY_TRAINING,
    )
