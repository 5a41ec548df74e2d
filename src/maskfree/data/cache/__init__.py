"""Files computed from photos before training: region maps, teacher features, prototypes."""
