"""`gfclient` and `python -m workloads.gfclient`: imports the rest where Ctrl-C is caught."""

import sys


def main() -> int:
    """Run gfclient; returns the exit code, 130 after Ctrl-C before it had begun."""
    try:
        from workloads.gfclient.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
