"""Comparisons with peers, and what models reach; each by one command."""
