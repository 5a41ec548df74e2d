"""Protocols that measure a `Segmenter` on a benchmark, one file each."""
