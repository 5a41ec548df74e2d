"""Formats in which a labeled data set is written, one module each."""
