"""SpoolRoom: how much of their file system the spools may take: at most half of what is free."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable

from webproxy.fetch.spool_budget import SpoolBudget

log = logging.getLogger(__name__)


def _free_bytes(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class SpoolRoom:
    """Owns the `budget`. Used by one thread."""

    def __init__(
        self,
        directory: str | None,
        bytes_max: int,
        files_max: int,
        free_bytes: Callable[[str], int] = _free_bytes,
    ) -> None:
        """`directory` as in Spool; `bytes_max` holds as long as there is twice as much free."""
        self._directory = directory or tempfile.gettempdir()
        self._bytes_max = bytes_max
        self._free_bytes = free_bytes
        self._is_little = False
        self.budget = SpoolBudget(bytes_max, files_max)
        self.look()

    def look(self) -> None:
        """See how much is free, and log when it has become little; to be called about once a second."""
        try:
            free_bytes = self._free_bytes(self._directory)
        except OSError as error:
            log.debug("spool directory not looked at", extra={"directory": self._directory, "reason": str(error)})
            return
        room = min(self._bytes_max, self.budget.used_bytes + free_bytes // 2)
        if room != self.budget.bytes_max:
            for wake in self.budget.resize(room):
                wake()
        was_little, self._is_little = self._is_little, room < self._bytes_max
        if self._is_little and not was_little:
            facts = {"directory": self._directory, "free_bytes": free_bytes, "spool_bytes_max": self._bytes_max}
            remedy = "make room there, or set spool_directory or a lower spool_bytes_max"
            log.warning("little room for spools", extra={**facts, "remedy": remedy})
