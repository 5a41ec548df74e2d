"""Labeled segmentation benchmarks on disk."""
