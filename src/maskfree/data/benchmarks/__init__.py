"""Labeled benchmarks on disk."""
