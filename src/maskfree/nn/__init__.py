"""Neural network modules: image and text encoders, projections and heads."""
