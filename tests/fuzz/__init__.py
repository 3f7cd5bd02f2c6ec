"""Damages what users and other machines hand in; see `__main__`."""
