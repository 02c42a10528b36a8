"""Replies: heads byte by byte; each says the end of its body in one way, and what becomes of the connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from webproxy.caching.stored import StoredResponse
from webproxy.exchange.response_heads import (
    CLOSES,
    STAYS,
    STAYS_AND_SAYS_SO,
    Connection,
    ResponseHeads,
    body_framing,
    connection_for,
)
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.response_head import OriginResponse

REPLIES = ResponseHeads(b"gf")
DATE = b"Sat, 21 Nov 2026 10:00:00 GMT"
NOW = 1_795_255_200.0  # the same moment
STORED = StoredResponse(
    status=200,
    fields=Fields([(b"ETag", b'"v"'), (b"Content-Type", b"text/plain")]),
    request_time=0.0,
    response_time=0.0,
    initial_age_s=0,
    lifetime_s=60,
    body_bytes=1000,
)


def stored(status: int, **changes: object) -> StoredResponse:
    values = {name: getattr(STORED, name) for name in ("fields", "request_time", "response_time", "lifetime_s")}
    values |= {"initial_age_s": 0, "body_bytes": 0, **changes}
    return StoredResponse(status=status, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "keep_alive", "may_stay", "said"),
    [
        ((1, 1), True, True, STAYS),
        ((1, 1), True, False, CLOSES),
        ((1, 1), False, True, CLOSES),
        ((1, 0), True, True, STAYS_AND_SAYS_SO),
        ((1, 0), True, False, CLOSES),
        ((1, 0), False, True, CLOSES),
    ],
)
def test_what_becomes_of_the_connection(
    version: tuple[int, int], keep_alive: bool, may_stay: bool, said: Connection
) -> None:
    request = RequestHead(b"GET", b"/", version, Fields(), keep_alive=keep_alive)
    assert connection_for(request, may_stay=may_stay) == said


@pytest.mark.parametrize(
    ("connection", "line"),
    [(STAYS, b""), (STAYS_AND_SAYS_SO, b"Connection: keep-alive\r\n"), (CLOSES, b"Connection: close\r\n")],
)
def test_a_hit(connection: Connection, line: bytes) -> None:
    assert REPLIES.hit(STORED, 7, connection) == (
        b'HTTP/1.1 200 OK\r\nETag: "v"\r\nContent-Type: text/plain\r\n'
        b"Age: 7\r\nCache-Status: gf; hit; ttl=53\r\nVia: 1.1 gf\r\n" + line + b"Content-Length: 1000\r\n\r\n"
    )


def test_a_hit_that_is_stale_or_has_another_status_says_so() -> None:
    head = REPLIES.hit(stored(404, reason=b"Gone Fishing"), 70, STAYS, REPLIES.status(fwd=b"stale", ttl=-10))
    assert head.startswith(b"HTTP/1.1 404 Gone Fishing\r\n")
    assert b"\r\nCache-Status: gf; fwd=stale; ttl=-10\r\n" in head
    assert REPLIES.hit(stored(200), 70, STAYS).count(b"ttl=-10\r\n") == 1


def test_a_stored_204_has_no_length() -> None:
    head = REPLIES.hit(stored(204), 1, STAYS)
    assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert head.endswith(b"Via: 1.1 gf\r\n\r\n")
    assert b"Content-Length" not in head


def test_a_name_with_a_percent_sign() -> None:
    head = ResponseHeads(b"a%d%s").hit(STORED, 7, STAYS)
    assert b"\r\nAge: 7\r\nCache-Status: a%d%s; hit; ttl=53\r\nVia: 1.1 a%d%s\r\n" in head


def test_not_modified_has_no_body_and_no_length() -> None:
    assert REPLIES.not_modified(STORED, 7, CLOSES, None) == (
        b'HTTP/1.1 304 Not Modified\r\nETag: "v"\r\n'
        b"Age: 7\r\nCache-Status: gf; hit; ttl=53\r\nVia: 1.1 gf\r\nConnection: close\r\n\r\n"
    )


def test_one_range() -> None:
    head = REPLIES.part(STORED, 7, STAYS, None, 10, 20)
    assert head.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert head.endswith(b"\r\nContent-Range: bytes 10-19/1000\r\nContent-Length: 10\r\n\r\n")


def test_a_part_has_no_digest_of_the_whole() -> None:
    whole = replace(STORED, fields=STORED.fields.with_line(b"Content-Digest", b"sha-256=:a:"))
    assert b"Content-Digest" in REPLIES.hit(whole, 7, STAYS)
    assert b"Content-Digest" not in REPLIES.part(whole, 7, STAYS, None, 10, 20)
    assert b"Content-Digest" not in REPLIES.parts(whole, 7, STAYS, None, b"bound", 321)


def test_several_ranges_are_of_one_type_only() -> None:
    head = REPLIES.parts(STORED, 7, STAYS, None, b"bound", 321)
    assert head.lower().count(b"content-type:") == 1
    assert head.endswith(b"\r\nContent-Type: multipart/byteranges; boundary=bound\r\nContent-Length: 321\r\n\r\n")


def test_no_such_range() -> None:
    whole = REPLIES.unsatisfiable(STORED, 7, STAYS, None, NOW)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 416 Range Not Satisfiable\r\nDate: " + DATE + b"\r\n")
    assert b"\r\nContent-Range: bytes */1000\r\nCache-Status: gf; hit; ttl=53\r\n" in head
    assert body == b"range not satisfiable\n"


# -- of an origin's answers -------------------------------------------------------------------------------------------
def forwarded(response: OriginResponse, framing: bytes, connection: Connection = STAYS) -> bytes:
    return REPLIES.forwarded(response, connection, REPLIES.status(fwd=b"uri-miss"), framing, NOW)


@pytest.mark.parametrize(
    ("method", "version", "status", "length", "framing", "connection"),
    [
        pytest.param(b"GET", (1, 1), 200, 5, b"Content-Length: 5\r\n", STAYS, id="length"),
        pytest.param(b"GET", (1, 1), 200, None, b"Transfer-Encoding: chunked\r\n", STAYS, id="chunks"),
        pytest.param(b"GET", (1, 0), 200, None, b"", CLOSES, id="the-end-of-the-connection"),
        pytest.param(b"GET", (1, 0), 200, 5, b"Content-Length: 5\r\n", STAYS, id="old-with-length"),
        pytest.param(b"HEAD", (1, 1), 200, 0, b"", STAYS, id="head"),
        pytest.param(b"GET", (1, 1), 204, 0, b"", STAYS, id="no-content"),
        pytest.param(b"GET", (1, 1), 304, 0, b"", STAYS, id="not-modified"),
    ],
)
def test_framing(
    method: bytes, version: tuple[int, int], status: int, length: int | None, framing: bytes, connection: Connection
) -> None:
    request = RequestHead(method, b"/", version, Fields())
    response = OriginResponse(status=status, fields=Fields(), length=length)
    assert body_framing(request, response, STAYS) == (framing, connection)


def test_an_origins_answer_loses_what_was_meant_for_us() -> None:
    fields = Fields(
        [
            (b"Connection", b"X-Hop"),
            (b"X-Hop", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Server", b"s"),
        ]
    )
    assert forwarded(OriginResponse(status=200, fields=fields), b"Transfer-Encoding: chunked\r\n") == (
        b"HTTP/1.1 200 OK\r\nServer: s\r\nDate: " + DATE + b"\r\n"
        b"Cache-Status: gf; fwd=uri-miss\r\nVia: 1.1 gf\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


def test_the_date_of_the_origin_stays() -> None:
    dated = OriginResponse(status=200, fields=Fields([(b"date", b"Sat, 21 Nov 2026 09:00:00 GMT")]), length=0)
    assert forwarded(dated, b"Content-Length: 0\r\n").lower().count(b"\r\ndate: ") == 1


@pytest.mark.parametrize(
    ("status", "framing", "lengths"),
    [
        (200, b"Content-Length: 5\r\n", [b"5"]),
        (200, b"Transfer-Encoding: chunked\r\n", []),
        (200, b"", [b"5"]),  # HEAD: what a GET would bring
        (304, b"", [b"5"]),
        (204, b"", []),
    ],
)
def test_there_is_one_framing_at_most(status: int, framing: bytes, lengths: list[bytes]) -> None:
    head = forwarded(OriginResponse(status=status, fields=Fields([(b"Content-Length", b"5")]), length=5), framing)
    lines = head.split(b"\r\n")
    assert [line.partition(b": ")[2] for line in lines if line.startswith(b"Content-Length")] == lengths
    assert head.count(b"Transfer-Encoding") == framing.count(b"Transfer-Encoding")


def test_via_names_the_protocol_that_the_origin_spoke() -> None:
    head = forwarded(OriginResponse(status=200, fields=Fields(), length=0, http_version=b"2"), b"Content-Length: 0\r\n")
    assert b"\r\nVia: 2 gf\r\n" in head


def test_a_reason_of_the_origin_stays() -> None:
    head = forwarded(
        OriginResponse(status=299, fields=Fields(), length=0, reason=b"Quite OK"), b"Content-Length: 0\r\n", CLOSES
    )
    assert head.startswith(b"HTTP/1.1 299 Quite OK\r\n")
    assert head.endswith(b"Connection: close\r\nContent-Length: 0\r\n\r\n")


# -- of our own -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("connection", "line"),
    [(STAYS, b""), (STAYS_AND_SAYS_SO, b"Connection: keep-alive\r\n"), (CLOSES, b"Connection: close\r\n")],
)
def test_an_error(connection: Connection, line: bytes) -> None:
    whole = REPLIES.local(502, connection, NOW, "no answer")
    assert whole == (
        b"HTTP/1.1 502 Bad Gateway\r\nDate: " + DATE + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"" + line + b"Content-Length: 10\r\n\r\nno answer\n"
    )
    head, _, _ = whole.partition(b"\r\n\r\n")
    assert REPLIES.local(502, connection, NOW, "no answer", with_body=False) == head + b"\r\n\r\n"


def test_an_answer_with_a_field_and_without_a_text() -> None:
    assert REPLIES.local(405, STAYS, NOW, fields=b"Allow: GET\r\n") == (
        b"HTTP/1.1 405 Method Not Allowed\r\nDate: " + DATE + b"\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n"
    )
