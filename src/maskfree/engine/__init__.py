"""The training loop, the trainer, optimizers and logging."""
