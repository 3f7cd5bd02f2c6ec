"""Studies: many trials, their records and the report."""
