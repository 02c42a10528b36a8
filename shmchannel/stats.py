"""PURE: frozen snapshots of the library's long-lived objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """If segments_leased stays near segments_total, raise the number of segments (docs/tuning.md).

    `widest_lease` is the largest number of segments in one lease, `shrunk_total` how many were returned in mid-transfer
    because others waited.
    """

    segments_total: int
    segments_leased: int
    waiting: int
    leases_total: int
    widest_lease: int
    shrunk_total: int
    retired_total: int
    timeouts_total: int
    refused_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """Commands by result; `chunks_total` counts the hand-overs of answers that ended cleanly.

    `attached` is the number of segments of proxies that are mapped now.
    """

    served_total: int
    malformed_total: int
    expired_total: int
    broken_total: int
    failed_total: int
    chunks_total: int
    attached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotTableStats:
    """Objects put into the hot table, removed because they changed or went, and evicted because it was full.

    `taken_bytes` is the memory it has taken so far.
    """

    published_total: int
    dropped_total: int
    evicted_total: int
    objects_count: int
    taken_bytes: int
