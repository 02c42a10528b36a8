"""`python -m workloads.gfclient`."""

import sys

from workloads.gfclient.cli import main

if __name__ == "__main__":
    sys.exit(main())
