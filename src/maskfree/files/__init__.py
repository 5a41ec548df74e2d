"""Writing files: atomically, planned against inputs, with the leftovers of killed runs removed."""
