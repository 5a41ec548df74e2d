"""From words and captions to tokens."""
