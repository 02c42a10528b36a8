"""Resident memory of a process without shared memory: no segments, no memory files."""

from dataclasses import dataclass

import psutil

from shmchannel.process.naming import SHM_DIRECTORY

_SHARED = (SHM_DIRECTORY, "/memfd:")
NOTE = "RssAnon + RssFile of each process: its own pages and program files, without segments and store (RssShmem)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMemory:
    """Megabytes (10^6 bytes) of both daemons at one time."""

    cache_mb: float
    proxy_mb: float


def resident_mb(pid: int) -> float:
    """Unshared megabytes of a process. Raises psutil.Error if it is gone."""
    maps = psutil.Process(pid).memory_maps()
    return sum(int(mapping.rss) for mapping in maps if not mapping.path.startswith(_SHARED)) / 1e6


def pair_memory(cache_pid: int, proxy_pid: int) -> PairMemory:
    """Measure both daemons. Raises psutil.Error if one is gone."""
    return PairMemory(cache_mb=resident_mb(cache_pid), proxy_mb=resident_mb(proxy_pid))
