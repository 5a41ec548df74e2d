"""DeepLab student for self-training."""
