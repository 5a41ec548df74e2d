"""Inference: segmentation, tracking in video and segment retrieval with a trained model."""
