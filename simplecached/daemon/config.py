"""CacheConfig: every setting of the cache daemon, declared once."""

from __future__ import annotations

import os
from dataclasses import dataclass

from shmchannel.daemonkit.daemon import DaemonConfig
from shmchannel.daemonkit.settings import SettingError, check_bounds, option
from shmchannel.errors import UsageError
from shmchannel.objects.hot_table_layout import HOT_TABLE_BYTES_MAX, HOT_TABLE_BYTES_MIN
from shmchannel.process.naming import DEFAULT_QUEUE_NAME, checked_queue_name

MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig(DaemonConfig):
    """Settings of simplecached."""

    content: str | None = option(
        None,
        "files to serve: a map file with lines '<key> <path>', or a directory",
        flags=("-c", "--content"),
        metavar="PATH",
    )
    worker_threads: int = option(8, "threads that serve commands", flags=("-t", "--threads"), low=1, high=256)
    lookup_delay_us: int = option(
        0,
        "delay of each lookup, to make concurrency visible: at 200000, 1, 4, 8 workers serve 5, 20, 40 requests/s",
        flags=("-d", "--delay"),
        low=0,
        high=5_000_000,
    )
    queue_name: str = option(
        DEFAULT_QUEUE_NAME, "name of the command queue", flags=("-q", "--queue"), metavar="NAME", low=2, high=201
    )
    store: str = option(
        MEMORY,
        "where objects are kept: 'memory', or a directory that survives restarts",
        flags=("--store",),
        metavar="memory|DIR",
    )
    store_bytes: int | None = option(
        None,
        "size limit of the object store; the least recently used objects are evicted first; "
        "default: 1g, but in memory at most half of what is available",
        flags=("--store-bytes",),
        low=0,
        high=1 << 50,
    )
    hot_table_bytes: int = option(
        128 << 20,
        "most shared memory for the table in which proxies find objects without a command; 0 or a lookup delay: none",
        flags=("--hot-table-bytes",),
        low=0,
        high=HOT_TABLE_BYTES_MAX,
        formerly=("shelf_bytes",),
    )
    between_bytes_timeout_s: float = option(
        30.0, "time limit for a proxy's next step in a transfer", low=0.1, high=3600, formerly=("stall_s",)
    )

    def __post_init__(self) -> None:
        """Check each value against its bounds."""
        check_bounds(self)
        try:
            checked_queue_name(self.queue_name)
        except UsageError as error:
            raise SettingError("queue_name", self.queue_name, error.hint) from None
        if self.content is not None:
            try:
                os.stat(self.content)
            except OSError as error:
                hint = error.strerror or str(error)
                raise SettingError("content", self.content, "a directory or a map file", hint=hint) from None
        if self.store != MEMORY:
            _check_parent("store", self.store)
        if 0 < self.hot_table_bytes < HOT_TABLE_BYTES_MIN:
            raise SettingError(
                "hot_table_bytes", self.hot_table_bytes, f"0, or {HOT_TABLE_BYTES_MIN} to {HOT_TABLE_BYTES_MAX} bytes"
            )


def _check_parent(name: str, path: str) -> None:
    """Refuse a directory whose parent does not exist: a misspelt path is not created."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise SettingError(
            name, path, "'memory', or a directory in one that exists", hint=f"{parent} is not a directory"
        )
