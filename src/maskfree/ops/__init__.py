"""Parameter-free operations on score maps and embeddings."""
