"""Labelled benchmarks on disk."""
