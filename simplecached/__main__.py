"""`simplecached` and `python -m simplecached`: imports everything else inside a `try` that catches Ctrl-C."""

import signal
import sys


def main() -> int:
    """Run the daemon; returns the exit code, INTERRUPTED after Ctrl-C before anything needed cleaning up."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it reopens logs: before there are any it must not end the process
    try:
        from simplecached.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # ExitCode.INTERRUPTED, which must not be imported yet


if __name__ == "__main__":
    sys.exit(main())
