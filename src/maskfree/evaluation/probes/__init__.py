"""Probes of frozen embeddings."""
