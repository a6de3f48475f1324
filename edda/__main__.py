"""`python -m edda`: the command line."""

import sys

from edda.cli import main

if __name__ == "__main__":
    sys.exit(main())
