"""The rows of the table of `slow_parties`, and what each must hold."""

from dataclasses import dataclass
from enum import Enum, auto

from scripts.stress.crowd import Parties, Then

HIT_LATENCY_FACTOR = 2.0
HIT_LATENCY_ALLOWED_MS = 20.0
PARTY_KIB_MAX = 30.0
PARTIES_TO_JUDGE_MEMORY = 256
"""Fewer parties share what the process needs once, such as arenas of malloc()."""
ORIGIN_CONNECTIONS_MAX = 64
GOODPUT_SHARE_MIN = 0.8
REFUSAL_MS_MAX = 5.0
STOPPED_CACHE_SHARE_MIN = 0.5
RUNNERS = 8
ARRIVALS_PER_S = 300.0
TRIES = 20


class Kind(Enum):
    """How a row is measured."""

    CROWD = auto()
    RUNNERS = auto()
    OVERLOAD = auto()
    STOPPED_CACHE = auto()
    KILLED_CACHE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row. `stored` are the targets that the cache holds before it begins."""

    name: str
    title: str
    kind: Kind = Kind.CROWD
    parties: Parties | None = None
    stored: tuple[str, ...] = ()
    bounds_origin: bool = False
    """Whether the connections that the origin saw are judged."""
    getfile: bool = False
    range: bool = False
    hot: bool = True
    on_disk: bool = False


def _http(line: str, *fields: str, body: str = "") -> str:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: stress", *fields, "", body])


def _getfile(target: str) -> str:
    return f"GETFILE GET {target}\r\n\r\n"


def _crowd(name: str, title: str, then: Then, request: str, *, stored: tuple[str, ...] = (), drip: str = "x") -> Row:
    return Row(name=name, title=title, stored=stored, parties=Parties(request=request, then=then, drip=drip))


_LENGTH = "Content-Length: 1000"
_RANGES = "Range: bytes=0-5999999,6500000-11999999"


def _killed_rows() -> list[Row]:
    rows = []
    for how, getfile, in_range in (("HTTP", False, False), ("range", False, True), ("getfile", True, False)):
        for hot in (True, False):
            for on_disk in (False, True):
                words = (how, "hot" if hot else "not hot", "directory" if on_disk else "memory")
                rows.append(
                    Row(
                        name="killed-" + "-".join(words).replace(" ", "-").lower(),
                        title=f"cache killed in mid-body, 20 MB: {', '.join(words)}",
                        kind=Kind.KILLED_CACHE,
                        stored=("/twenty",),
                        getfile=getfile,
                        range=in_range,
                        hot=hot,
                        on_disk=on_disk,
                    )
                )
    return rows


ROWS = (
    _crowd("silent-urls", "waiters for a silent origin: distinct URLs", Then.WAIT, _http("GET /silent?{n}")),
    _crowd("silent-one", "waiters for a silent origin: one URL", Then.WAIT, _http("GET /silent?one")),
    _crowd(
        "silent-no-store",
        "waiters for a silent origin: no-store",
        Then.WAIT,
        _http("GET /silent?one", "Cache-Control: no-store"),
    ),
    _crowd("silent-head", "waiters for a silent origin: HEAD", Then.WAIT, _http("HEAD /silent?{n}")),
    _crowd("silent-getfile", "waiters for a silent origin: getfile", Then.WAIT, _getfile("/silent?{n}")),
    _crowd("stopped-miss", "stopped readers of a miss: HTTP", Then.STOP, _http("GET /slow24?one")),
    _crowd("stopped-miss-getfile", "stopped readers of a miss: getfile", Then.STOP, _getfile("/slow24?one")),
    _crowd(
        "stopped-pass",
        "stopped readers of passed-through answers",
        Then.STOP,
        _http("POST /pass?{n}", "Content-Length: 1", body="x"),
    ),
    _crowd(
        "stopped-ranges",
        "stopped readers of several ranges of a hit",
        Then.STOP,
        _http("GET /large", _RANGES),
        stored=("/large",),
    ),
    _crowd(
        "stopped-ranges-miss",
        "stopped readers of several ranges of a miss",
        Then.STOP,
        _http("GET /slow24?one", _RANGES),
    ),
    _crowd(
        "stopped-hit-getfile", "stopped readers of a hit: getfile", Then.STOP, _getfile("/large"), stored=("/large",)
    ),
    _crowd("upload-length", "uploads of a byte every 3 s: with length", Then.DRIP, _http("PUT /upload?{n}", _LENGTH)),
    _crowd(
        "upload-chunked",
        "uploads of a byte every 3 s: chunked",
        Then.DRIP,
        _http("PUT /upload?{n}", "Transfer-Encoding: chunked"),
        drip="1\r\nx\r\n",
    ),
    _crowd(
        "upload-expect",
        "uploads of a byte every 3 s: Expect",
        Then.DRIP,
        _http("PUT /upload?{n}", _LENGTH, "Expect: 100-continue"),
    ),
    _crowd("upload-get", "uploads of a byte every 3 s: GET with a body", Then.DRIP, _http("GET /upload?{n}", _LENGTH)),
    _crowd(
        "upload-purge", "uploads of a byte every 3 s: PURGE with a body", Then.DRIP, _http("PURGE /hit?no-{n}", _LENGTH)
    ),
    Row(
        name="left",
        title="clients that asked and left (5 s origin)",
        parties=Parties(request=_http("GET /late5?{n}"), then=Then.LEAVE),
        bounds_origin=True,
    ),
    Row(
        name="arriving",
        title=f"slow readers of hits arriving at {ARRIVALS_PER_S:.0f} a second",
        parties=Parties(request=_http("GET /four"), then=Then.SIP, arrivals_per_s=ARRIVALS_PER_S),
        stored=("/four",),
    ),
    Row(name="runners", title=f"{RUNNERS} runners downloading one file of 24 MB at 4 MB/s", kind=Kind.RUNNERS),
    Row(name="overload", title="open loop at 3 x capacity, half of it misses of 2 s", kind=Kind.OVERLOAD),
    Row(name="stopped-cache", title="cache stopped by SIGSTOP, origin up", kind=Kind.STOPPED_CACHE),
    *_killed_rows(),
)
