"""What a model gives, and how it is drawn."""
