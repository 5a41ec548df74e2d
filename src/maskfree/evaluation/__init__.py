"""Protocols that measure a model on benchmarks."""
