"""PURE: the loads of the HTTP table and their targets. The only place with these numbers."""

from dataclasses import dataclass

from scripts.benchmark.rows import MEGABYTES, REQUESTS
from scripts.benchmark.stats import Target

KIB8, MIB1, MIB10 = 8 << 10, 1 << 20, 10 << 20
OBJECT_COUNTS = {KIB8: 32, MIB1: 8, MIB10: 4}
PROXY_THREADS, SEGMENT_COUNT = 8, 32
OURS, NGINX, VARNISH = "ours", "nginx", "varnish"
PACKAGES = {NGINX: "nginx-light", VARNISH: "varnish", "wrk": "wrk"}
"""The Debian package of each peer and of the load generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRow:
    """One line of the table; `figure` is compared with nginx's. All requests are hits."""

    key: str
    title: str
    object_bytes: int
    connections: int
    new_connections: bool
    figure: str
    target: Target


def _row(key: str, load: str, object_bytes: int, connections: int, target: float, *, new: bool = False) -> HttpRow:
    return HttpRow(
        key=key,
        title=load,
        object_bytes=object_bytes,
        connections=connections,
        new_connections=new,
        figure=REQUESTS if object_bytes == KIB8 else MEGABYTES,
        target=Target(value=target),
    )


HTTP_ROWS = (
    _row("http_1m", "1 MiB, 8 connections", MIB1, 8, 1.0),
    _row("http_10m", "10 MiB, 8 connections", MIB10, 8, 1.0),
    _row("http_8k_new", "8 KiB, new connection each, 8 clients", KIB8, 8, 0.5, new=True),
    _row("http_8k_8", "8 KiB, keep-alive, 8 connections", KIB8, 8, 0.35),
    _row("http_8k_64", "8 KiB, keep-alive, 64 connections", KIB8, 64, 0.35),
)
POLICY_TITLE = "pure policy decision, fresh hit"
POLICY_TARGET = Target(value=15, is_maximum=True)
"""Microseconds."""
