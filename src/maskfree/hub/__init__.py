"""Models by name or folder: loading, the catalog, checkpoints and converters."""
