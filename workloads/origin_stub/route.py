"""How the stub answers one path.

Everything that can go wrong with an origin is a field here; the defaults are an honest server. Offsets count the
bytes of the body as sent (after a range was cut out of it).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from workloads.origin_stub.request import Request

Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
"""Names and values; as pairs when a name comes more than once."""


def pairs_of(headers: Headers) -> list[tuple[str, str]]:
    """Return the names and values in a list of their own."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


class Framing(StrEnum):
    """How the end of a body is told: by its length, by the last chunk, or by the end of the connection."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(slots=True, kw_only=True)
class Route:
    """One scripted path. The two events belong to the route: a test waits for `reached` and sets `hold`."""

    body: bytes = b""
    file_name: str | None = None  # the body is this file instead
    status: int = 200
    reason: str | None = None  # the usual one, without this
    version: str = "HTTP/1.1"  # with HTTP/1.0 the connection ends
    headers: Headers = field(default_factory=dict)  # such as ETag, Last-Modified, Cache-Control, Vary
    bare: bool = False  # True: of the fields that do not frame the body only `headers` are sent
    interim: Sequence[tuple[int, Headers]] = ()  # answers of 1xx, first of all
    trailers: Headers = ()  # behind the last chunk
    framing: Framing = Framing.LENGTH
    declared_length: int | None = None  # what Content-Length says, when that is not the truth
    ranges: bool = True  # False: a Range is ignored and everything sent with 200
    conditions: bool = True  # False: If-None-Match and If-Modified-Since are ignored
    redirect_to: str | None = None  # the Location of a 302; the route's own path makes a loop

    methods: Collection[str] = ("GET", "HEAD")  # others get 405
    continues: bool = True  # False: no 100 for who expects one
    reads_body: bool = True  # False: an answer at once, with neither 100 nor a look at the request's body
    echo: bool = False  # the body is the request: method, path, version, fields, body (as Latin-1), in JSON
    choose: Callable[[Request], Route] | None = None  # the route that this request gets instead

    fail_first: int = 0  # so many requests get `fail_status`, the ones after them the real answer
    fail_status: int = 503
    delay_s: float = 0.0  # before the head
    stall_at: int | None = None  # silence of `stall_s` at this offset
    stall_s: float = 0.0
    drip_bytes_per_s: float | None = None
    truncate_at: int | None = None  # the connection ends cleanly at this offset
    reset_at: int | None = None  # the connection is reset at this offset

    hold: threading.Event | None = None  # the body goes on only when this is set
    hold_at: int | None = None  # at this offset; None: half way
    hold_head: bool = False  # hold before the head instead
    reached: threading.Event = field(default_factory=threading.Event)  # set when a response waits for `hold`
