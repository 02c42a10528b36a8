"""A client that stops at any byte of any kind of answer gets all of it, exactly, and its next answer behind it."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.http.client import HttpClient
from tests.support.client import connect, parse_answer, receive_to_end
from tests.support.rationed import Ration, ration
from tests.support.waiting import wait_until
from tests.support.whole_pair import WholePair, whole_pair
from webproxy.daemon import handover
from webproxy.exchange import body_transfer
from webproxy.getfile import Wire, request_bytes
from workloads.origin_stub import Framing, Route

FRESH = {"Cache-Control": "max-age=900", "ETag": '"1"', "Age": "100"}
"""Ages and lifetimes of three digits each, so that answers are equally long for some minutes."""
SMALL = os.urandom(150)
CHUNK = 512
"""The size of a segment, header included: a small body has several chunks."""
LARGE = os.urandom(40_000)
"""Beyond what the hot table copies: it names the file."""
RANGES = "Range: bytes=3-40, 60-71, -9"

_numbers = itertools.count()


def http(line: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: h", *fields, "", ""]).encode() + body


LAST = http("HEAD /small", "Connection: close")


@dataclass(frozen=True)
class Kind:
    """One kind of answer: the routes of the origin, and the request, which may be new each time."""

    request: Callable[[], bytes]
    answer: bytes
    """What its body is, or has in it."""
    is_hot: bool = True
    wire: Wire | None = None
    """Of getfile."""


def a_miss(line: str, *fields: str, body: bytes = b"") -> Callable[[], bytes]:
    return lambda: http(line.format(next(_numbers)), *fields, body=body)


def the(request: bytes) -> Callable[[], bytes]:
    return lambda: request


def getfile_miss() -> bytes:
    return request_bytes(b"/miss?%d" % next(_numbers))


POST = "Content-Length: 5"
KINDS = {
    "hit of the hot table": Kind(the(http("GET /small")), SMALL),
    "hit by command": Kind(the(http("GET /small")), SMALL, is_hot=False),
    "hit by command in chunks": Kind(the(http("GET /medium")), LARGE[:1500], is_hot=False),
    "hit from a file": Kind(the(http("GET /large")), LARGE),
    "range of the hot table": Kind(the(http("GET /small", "Range: bytes=3-140")), SMALL[3:141]),
    "range by command": Kind(the(http("GET /medium", "Range: bytes=300-800")), LARGE[300:801], is_hot=False),
    "range from a file": Kind(the(http("GET /large", "Range: bytes=20000-20150")), LARGE[20_000:20_151]),
    "ranges of the hot table": Kind(the(http("GET /small", RANGES)), SMALL[60:72]),
    "ranges by command": Kind(the(http("GET /medium", RANGES)), LARGE[60:72], is_hot=False),
    "ranges from a file": Kind(the(http("GET /large", RANGES)), LARGE[60:72]),
    "HEAD of a hit": Kind(the(http("HEAD /small")), b""),
    "HEAD by command": Kind(the(http("HEAD /small")), b"", is_hot=False),
    "HEAD of a miss": Kind(a_miss("HEAD /miss?{}"), b""),
    "304 from the hot table": Kind(the(http("GET /small", 'If-None-Match: "1"')), b""),
    "304 by command": Kind(the(http("GET /small", 'If-None-Match: "1"')), b"", is_hot=False),
    "416": Kind(the(http("GET /small", "Range: bytes=900-")), b""),
    "miss with a length": Kind(a_miss("GET /miss?{}"), SMALL),
    "miss in chunks": Kind(a_miss("GET /chunked?{}"), SMALL),
    "range of a miss": Kind(a_miss("GET /miss?{}", "Range: bytes=3-140"), SMALL[3:141]),
    "ranges of a miss": Kind(a_miss("GET /miss?{}", RANGES), SMALL[60:72]),
    "passed through with a length": Kind(the(http("POST /echo", POST, body=b"12345")), SMALL),
    "passed through in chunks": Kind(the(http("POST /chunks", POST, body=b"12345")), SMALL),
    "passed through behind a 103": Kind(the(http("POST /hints", POST, body=b"12345")), SMALL),
    "no-store": Kind(the(http("GET /small", "Cache-Control: no-store")), SMALL),
    "404": Kind(a_miss("GET /missing?{}"), b"no such object\n"),
    "only-if-cached": Kind(a_miss("GET /miss?{}", "Cache-Control: only-if-cached"), b""),
    "PURGE": Kind(a_miss("PURGE /miss?{}"), b""),
    "own answer": Kind(the(http("OPTIONS *", "Max-Forwards: 0")), b""),
    **{
        f"getfile, {name}, {wire.value}": Kind(request, answer, is_hot, wire)
        for wire in Wire
        for name, request, answer, is_hot in (
            ("hot table", the(request_bytes(b"/small")), SMALL, True),
            ("by command", the(request_bytes(b"/medium")), LARGE[:1500], False),
            ("from a file", the(request_bytes(b"/large")), LARGE, True),
            ("miss", getfile_miss, SMALL, True),
        )
    },
}


@pytest.fixture
def rationed(monkeypatch: pytest.MonkeyPatch) -> Ration:
    # What is waited for here does not come before the worker is given up.
    monkeypatch.setattr(body_transfer, "PATIENCE_NS", 0)
    return ration(monkeypatch)


def fill(pair: WholePair) -> None:
    pair.fill("/small", Route(body=SMALL, headers=FRESH))
    pair.fill("/medium", Route(body=LARGE[:1500], headers=FRESH))
    pair.fill("/large", Route(body=LARGE, headers=FRESH))
    pair.origin.add("/miss", Route(body=SMALL, headers=FRESH))
    pair.origin.add("/chunked", Route(body=SMALL, headers=FRESH, framing=Framing.CHUNKED))
    pair.origin.add("/echo", Route(body=SMALL, methods={"POST"}))
    pair.origin.add("/chunks", Route(body=SMALL, methods={"POST"}, framing=Framing.CHUNKED))
    pair.origin.add("/hints", Route(body=SMALL, methods={"POST"}, interim=[(103, {"Link": "</a>"})]))


class Asker:
    """Asks for one kind of answer again and again: over HTTP on one connection, where each is followed by the next."""

    def __init__(self, pair: WholePair, kind: Kind) -> None:
        self._pair = pair
        self._kind = kind
        self.whole = self._first()
        self._client = connect(pair.port)

    def _first(self) -> bytes:
        kind = self._kind
        if kind.wire is not None:
            return self._to_the_end(kind.request())
        last = self._to_the_end(LAST)
        both = self._to_the_end(kind.request() + LAST)
        assert lasting(both).endswith(lasting(last))
        return both[: -len(last)]

    def _to_the_end(self, request: bytes) -> bytes:
        with connect(self._pair.port) as client:
            client.sendall(request)
            return receive_to_end(client)

    def ask(self) -> bytes:
        """The next answer, as long as the first was."""
        if self._kind.wire is not None:
            return self._to_the_end(self._kind.request())
        self._client.sendall(self._kind.request())
        reply = b""
        while len(reply) < len(self.whole) and (data := self._client.recv(len(self.whole) - len(reply))):
            reply += data
        return reply

    def close(self) -> None:
        """Leave."""
        self._client.close()


_VARIES = re.compile(rb"(?<=Date: )[^\r]+|(?<=Age: )\d+|(?<=ttl=)\d+")


def lasting(reply: bytes) -> bytes:
    """Without the boundary between ranges and what the clock says."""
    boundary = re.search(rb"boundary=(\S+)", reply)
    if boundary is not None:
        reply = reply.replace(boundary[1], b"boundary")
    return _VARIES.sub(b"*", reply)


def stops(length: int) -> list[int]:
    """Every byte, or of a long answer those near its ends and some between them."""
    if length <= 1500:
        return list(range(length))
    return [*range(500), *range(500, length - 100, 4099), *range(length - 100, length)]


@pytest.mark.parametrize("name", KINDS)
def test_pauses_at_every_byte(rationed: Ration, name: str) -> None:
    """At all of them in one answer, and at each in an answer of its own."""
    kind = KINDS[name]
    settings = {"wire": kind.wire or Wire.CRLF, "segment_bytes": CHUNK, "compiled_hits": False}
    with whole_pair(hot=kind.is_hot, **settings) as pair, ExitStack() as ending:
        fill(pair)
        asker = Asker(pair, kind)
        ending.callback(asker.close)
        assert kind.answer in asker.whole
        expected, every = lasting(asker.whole), stops(len(asker.whole))
        rationed.begin(end - start for start, end in itertools.pairwise([0, *every]))
        assert lasting(asker.ask()) == expected
        assert rationed.pauses == len(every)
        for stop in every:
            rationed.begin([stop])
            assert lasting(asker.ask()) == expected, f"stopped at byte {stop}"
            assert rationed.pauses == 1, f"stopped at byte {stop}"
        pair.settle()


LITTLE = 4096
BIG = os.urandom(200_000)
REAL = {
    "hit by command": ("/big", (), False),
    "hit from a file": ("/big", (), True),
    "range from a file": ("/big", ("Range: bytes=5-",), True),
    "miss": ("/new", (), True),
    "miss in chunks": ("/chunks", (), True),
    "passed through": ("/new", ("Cache-Control: no-store",), True),
}


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes a small part of an answer, and its sender waits again and again while the client reads."""
    monkeypatch.setattr(body_transfer, "PATIENCE_NS", 0)
    listen = handover.open_listener

    def listener(host: str, port: int) -> socket.socket:
        made = listen(host, port)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
        return made

    monkeypatch.setattr(handover, "open_listener", listener)


def big_routes(pair: WholePair) -> None:
    pair.fill("/big", Route(body=BIG, headers=FRESH))
    pair.origin.add("/new", Route(body=BIG, headers=FRESH))
    pair.origin.add("/chunks", Route(body=BIG, headers=FRESH, framing=Framing.CHUNKED))


def waits_for_its_client(pair: WholePair) -> None:
    wait_until(lambda: pair.proxy.parking.parked == 1, what="an answer that waits for its client")


@pytest.mark.parametrize("name", REAL)
def test_a_real_socket_with_little_room(little_room: None, name: str) -> None:
    path, fields, is_hot = REAL[name]
    with whole_pair(hot=is_hot) as pair:
        big_routes(pair)
        with HttpClient(pair.port, receive_buffer_bytes=LITTLE) as client:
            client.send(path, *fields)
            waits_for_its_client(pair)
            reply = client.receive()
        assert reply.body == (BIG[5:] if fields and "Range" in fields[0] else BIG)
        pair.settle()


@pytest.mark.parametrize("path", ["/big", "/new"])
def test_a_real_socket_with_little_room_for_getfile(little_room: None, path: str) -> None:
    with whole_pair() as pair:
        big_routes(pair)
        with connect(pair.port, receive_buffer_bytes=LITTLE) as client:
            client.sendall(request_bytes(path.encode()))
            waits_for_its_client(pair)
            assert parse_answer(receive_to_end(client)).body == BIG
        pair.settle()
