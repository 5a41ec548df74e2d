"""The training loop, the trainer, optimisers and logging."""
