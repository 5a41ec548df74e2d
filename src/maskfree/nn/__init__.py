"""Parts with parameters: encoders, projections, heads."""
