"""Checks of settings, and the optional dependencies that parts need."""
