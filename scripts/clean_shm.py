"""`scripts/clean-shm`: `gfcache-clean` from a clone."""

import sys

from shmchannel.tools import clean

if __name__ == "__main__":
    sys.exit(clean.main(prog="clean-shm"))
