"""Index of the entities that the captions of a corpus mention."""
