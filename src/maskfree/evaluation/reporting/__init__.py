"""Results rows, tables, charts and reports."""
