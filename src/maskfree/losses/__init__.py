"""Loss functions: pure functions of tensors, one file per family."""
