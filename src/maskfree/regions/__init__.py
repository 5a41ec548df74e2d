"""Image regions without labels: contours, superpixels, region hierarchies."""
