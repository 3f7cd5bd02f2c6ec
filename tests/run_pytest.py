"""Runs pytest on the files named on the command line; BUILD's `main`."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
