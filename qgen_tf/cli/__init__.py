"""Command-line programs: flags, then one call."""
