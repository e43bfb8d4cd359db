"""`python -m mirage` is the command `mirage`."""

import sys

from mirage.cli import main

if __name__ == "__main__":
    sys.exit(main())
