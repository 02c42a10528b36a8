"""What a running cache takes over from changed settings, and what needs a restart."""

from __future__ import annotations

import dataclasses

from simplecached.daemon.config import CacheConfig

TAKEN_OVER = frozenset({"content", "store_bytes", "log_level", "log_format", "log_limit_s"})


def taken_over(running: CacheConfig, wanted: CacheConfig) -> CacheConfig:
    """Return the settings of the running cache with those of TAKEN_OVER as wanted."""
    return dataclasses.replace(running, **{name: getattr(wanted, name) for name in TAKEN_OVER})


def needing_restart(running: CacheConfig, wanted: CacheConfig) -> list[str]:
    """Return the names of settings that are wanted otherwise and can only be had by a restart."""
    names = [field.name for field in dataclasses.fields(CacheConfig) if field.name not in TAKEN_OVER]
    return sorted(name for name in names if getattr(running, name) != getattr(wanted, name))
