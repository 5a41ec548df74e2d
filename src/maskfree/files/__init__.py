"""File input and output: atomic writes, bounded reads, overwrite checks, cleanup of leftovers."""
