"""`gfmon` and `python -m webproxy.monitor`: imports the rest where Ctrl-C is caught."""

import sys


def main() -> int:
    """Run gfmon; returns the exit code, 130 after Ctrl-C."""
    try:
        from webproxy.monitor.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
