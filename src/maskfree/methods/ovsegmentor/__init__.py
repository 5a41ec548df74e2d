"""OVSegmentor (CVPR 2023)."""
