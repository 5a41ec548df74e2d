"""Settings shared by the debug recipes: a toy text encoder, and training within seconds."""

from maskfree.engine.config import TrainConfig
from maskfree.nn.encoder_config import TextEncoderConfig

TOY_TEXT = TextEncoderConfig(
    family="bert",
    architecture={
        "vocab_size": 256,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
    },
)
"""BERT with one layer, trained from scratch."""
TOY_TRAINING = TrainConfig(
    steps=200,
    batch_size=32,
    learning_rate=2e-3,
    warm_up_steps=20,
    average_decay=0.98,
    log_every=10,
    save_every=50,
)
"""Training on drawn shapes, within seconds on a CPU."""
