"""MaskCLIP (ECCV 2022) and its variants."""
