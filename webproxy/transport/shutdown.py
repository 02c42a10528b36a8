"""Shutdown: how far the end of this process has come, for all who would begin or wait for something."""

from __future__ import annotations


class Shutdown:
    """Both only ever become True; read by every thread, written by the one that ends the process."""

    def __init__(self) -> None:
        self.draining = False
        """What runs comes to its end, and no connection stays."""
        self.stopping = False
        """Nothing is waited for any more."""
