"""Loading, listing, saving and converting models."""
