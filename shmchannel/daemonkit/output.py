"""put_out(): what a command prints for people and scripts, which may have enough of it, or whose disk may be full."""

from __future__ import annotations

import os
import sys


def put_out(prog: str, text: str | bytes) -> bool:
    """Write to the standard output; False if it cannot be written, which is then said on standard error.

    Whoever has closed the other end of a pipe (`| head -1`) has what he wants: that is no failure.
    """
    try:
        if isinstance(text, bytes):
            sys.stdout.buffer.write(text)
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # what is left in buffers must not fail once more at the end
        os.close(null)
        if isinstance(error, BrokenPipeError):
            return True
        sys.stderr.write(f"{prog}: cannot write to the standard output: {error.strerror}\n")
        return False
    return True
