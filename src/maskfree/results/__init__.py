"""Result types of models, and how results are drawn."""
