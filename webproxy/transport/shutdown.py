"""Shutdown: the stages in which this process ends, for everyone about to start or wait for something."""

from __future__ import annotations


class Shutdown:
    """Both only ever become True; read by every thread, written by the one that ends the process."""

    def __init__(self) -> None:
        self.draining = False
        """Running requests complete, and no connection is kept open."""
        self.stopping = False
        """Nothing may be waited for."""
