"""Evaluation of models on benchmarks."""
