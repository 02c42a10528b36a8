"""`scripts/check-ipc-leaks`: `gfcache-leaks` from a clone."""

import sys

from shmchannel.tools import leaks

if __name__ == "__main__":
    sys.exit(leaks.main(prog="check-ipc-leaks", remedy="scripts/clean-shm"))
