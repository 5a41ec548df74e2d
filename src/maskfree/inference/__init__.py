"""From photos and words to label maps, tracks and search results."""
