"""Resident memory of a process without what it shares: no segments, no memory files."""

from dataclasses import dataclass

_COUNTED = ("RssAnon", "RssFile")  # RssShmem holds the segments and the store
NOTE = "RssAnon + RssFile of /proc/PID/status: its own pages and program files, without segments and store (RssShmem)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMemory:
    """Megabytes (10^6 bytes) of both daemons at one moment."""

    cache_mb: float
    proxy_mb: float


def resident_mb(pid: int) -> float:
    """Megabytes that a process holds by itself. Raises OSError when it is gone."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        fields = dict(line.split(":", 1) for line in status.read().splitlines())
    return sum(int(fields[name].split()[0]) for name in _COUNTED) * 1024 / 1e6


def pair_memory(cache_pid: int, proxy_pid: int) -> PairMemory:
    """Measure both daemons. Raises OSError when one is gone."""
    return PairMemory(cache_mb=resident_mb(cache_pid), proxy_mb=resident_mb(proxy_pid))
