"""Recipe of GroupViT, the baseline of the OVSegmentor paper."""

from __future__ import annotations

from maskfree.data.config import DataConfig, ViewConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.methods.groupvit.config import GroupViTConfig


def groupvit() -> Recipe:
    """GroupViT as in the paper: ViT-S from scratch, captions and three nouns, 4096 pairs per step.

    On CC4M, as the OVSegmentor paper trains its baseline; set your index with --data.index.

    Returns:
        Settings of the run.

    Source: arXiv:2202.11094, section 4.1; warm-up, final learning rate and gradient clipping, which
    it does not give, are the released code's.

    Differs: the same augmentation differences as `ovsegmentor_released`.
    """
    return Recipe(
        name="groupvit",
        method=GroupViTConfig(
            weights=None,
            tokenizer="openai/clip-vit-base-patch16",
            num_labels=3,
            views=ViewConfig(scale=(0.08, 1.0)),
        ),
        data=DataConfig(shards=("cc12m/{00000..01242}.tar",), index="cc12m-entities", workers=8),
        train=TrainConfig(
            # The index says how many pairs an epoch has.
            steps=0,
            epochs=(2, 30),
            batch_size=4096,
            learning_rate=1.6e-3,
            weight_decay=0.05,
            # As in the released code.
            clip_norm=5.0,
            final_rate=0.025,
            precision="bf16-mixed",
            log_every=50,
            save_every=1000,
        ),
        inference=AUTHORS_INFERENCE,
    )
