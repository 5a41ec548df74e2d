"""ViL-Seg (ECCV 2022)."""
