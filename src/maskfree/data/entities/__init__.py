"""The index of an image-caption corpus by entity."""
