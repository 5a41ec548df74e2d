"""Per-photo files prepared before training."""
