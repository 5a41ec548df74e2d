"""Grouping algorithms without parameters."""
