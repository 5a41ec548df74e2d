"""Rows of results as tables, charts and reports."""
