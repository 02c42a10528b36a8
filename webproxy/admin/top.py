"""PURE: top: what origins are asked for again and again, for the page, `/stats` and the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shmchannel.stats_pages.schema import OTHER

SHOWN_MAX = 20
Numbers = Mapping[tuple[str, ...], float]
"""By the label values of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """GETs for one path that an origin answered, and the bytes sent for them."""

    path: str
    requests: float
    sent_bytes: float


def top_missed(requests: Numbers, sent_bytes: Numbers) -> tuple[Missed, ...]:
    """From the rows of the metrics MISSED and MISSED_BYTES: the most frequent paths, at most SHOWN_MAX."""
    found = [
        Missed(path=path, requests=number, sent_bytes=sent_bytes.get((path,), 0.0))
        for (path,), number in requests.items()
        if number and path != OTHER
    ]
    return tuple(sorted(found, key=lambda missed: (-missed.requests, missed.path))[:SHOWN_MAX])
