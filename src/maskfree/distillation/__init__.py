"""Train a student from a teacher model on photos without labels."""
