"""The id of pixels that do not count."""

IGNORE = 255
"""Id of a pixel without a class, object or region, in every 8-bit map of ids."""
