"""`python -m lcg` is `lcg`."""

import sys

from lcg.cli import main

if __name__ == "__main__":
    sys.exit(main())
