"""PURE: top: what origins are asked for again and again, and by whom, for the page, `/stats` and the monitor."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What one client has asked for and got, and of these what the cache saved; of connections that have ended."""

    client: str
    requests: float
    sent_bytes: float
    saved_requests: float
    saved_bytes: float


def top_clients(requests: Numbers, sent_bytes: Numbers, saved: Numbers, saved_bytes: Numbers) -> tuple[Client, ...]:
    """From the rows of the four metrics of clients: who got the most bytes, at most SHOWN_MAX."""
    found = [
        Client(
            client=row[0],
            requests=number,
            sent_bytes=sent_bytes.get(row, 0.0),
            saved_requests=saved.get(row, 0.0),
            saved_bytes=saved_bytes.get(row, 0.0),
        )
        for row, number in requests.items()
        if number and row != (OTHER,)
    ]
    return tuple(sorted(found, key=lambda client: (-client.sent_bytes, client.client))[:SHOWN_MAX])
