"""Training data: reading and decoding photos, captions, videos and shards."""
