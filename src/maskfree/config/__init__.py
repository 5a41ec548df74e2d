"""Validation of config dataclasses, and checks of optional dependencies."""
