"""`webproxy` and `python -m webproxy`: imports everything else inside a `try` that catches Ctrl-C."""

import signal
import sys


def main() -> int:
    """Run the daemon; returns the exit code, INTERRUPTED after Ctrl-C before anything needed cleaning up."""
    # Their default action ends a process. They wait until the daemon can hear them (daemonkit.signals).
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    try:
        from webproxy.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # ExitCode.INTERRUPTED, which must not be imported yet


if __name__ == "__main__":
    sys.exit(main())
