"""What many models say together: rank correlations, claims, verdicts."""
