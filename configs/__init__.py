"""Lab notes: one experiment a file, each with `get_config()`.

The command-line programs find them by name: `--config=quickstart`.
"""
