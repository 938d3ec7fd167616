"""Runs the command line: `python -m gpujac`."""

import sys

from gpujac.cli import main

if __name__ == "__main__":
    sys.exit(main())
