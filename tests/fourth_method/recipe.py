"""Recipe of CLIPpy."""

from __future__ import annotations

from dataclasses import replace

from maskfree.methods.clippy.config import CLIPpyConfig

from maskfree.data.config import DataConfig, ViewConfig
from maskfree.engine.config import Recipe
from maskfree.inference.config import Inference
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.recipes.toy import TOY_TEXT, TOY_TRAINING


def clippy_debug() -> Recipe:
    """CLIPpy on colored shapes that the run draws itself: trains toy encoders in seconds."""
    architecture = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 96,
        "image_size": 64,
        "patch_size": 8,
    }
    return Recipe(
        name="clippy-debug",
        method=CLIPpyConfig(
            image=ImageEncoderConfig("vit", architecture),
            text=TOY_TEXT,
            embed_dim=32,
            views=ViewConfig(side_px=64),
        ),
        data=DataConfig(shapes=60, workers=0, shuffle_buffer=20),
        train=replace(TOY_TRAINING, steps=6, batch_size=8, warm_up_steps=2, accelerator="cpu"),
        inference=Inference(side_px=64),
    )
