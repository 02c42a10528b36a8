"""Hop against bytes that no honest origin sends: is each refused for what it is, and by nothing else?"""

from __future__ import annotations

import pytest

from tests.support.rawserver import RESET, RawServer, Step
from tests.support.sinks import CollectingSink, fetch
from webproxy.errors import OriginBadReply, OriginError, OriginTooLarge
from webproxy.origin.hop import UNWANTED_BYTES_MAX
from webproxy.origin.request import getfile_request
from webproxy.origin.response_head import HEADER_BYTES_MAX

OK = b"HTTP/1.1 200 OK\r\n"


def answer(*script: Step, object_bytes_max: int = 1 << 30) -> tuple[int, int | None, bytes]:
    sink = CollectingSink()
    with RawServer(list(script)) as server:
        request = getfile_request(f"http://127.0.0.1:{server.port}/x")
        response = fetch(request, sink, object_bytes_max=object_bytes_max)
    return response.status, response.length, sink.body


def refused(*script: Step) -> OriginError:
    with RawServer(list(script)) as server, pytest.raises(OriginError) as caught:
        fetch(getfile_request(f"http://127.0.0.1:{server.port}/x"), CollectingSink())
    return caught.value


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Content-Length: 3\r\n\r\nabc",
        OK + b"content-length:3\r\n\r\nabc",
        OK + b"Content-Length: 003\r\n\r\nabc",
        OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_unusual_but_right(reply: bytes) -> None:
    assert answer(reply) == (200, 3, b"abc")


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nContent-Length: 9\r\nStatus: 500\r\n\r\n",
        OK + b"\r\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
    ],
)
def test_a_length_that_is_not_told(reply: bytes) -> None:
    assert answer(reply) == (200, None, b"abc")


@pytest.mark.parametrize("cut", range(1, 42, 4))
def test_a_reply_in_two_pieces(cut: int) -> None:
    reply = OK + b"Content-Length: 6\r\n\r\nabcdef"
    assert answer(reply[:cut], reply[cut:]) == (200, 6, b"abcdef")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"nothing like HTTP\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        OK + b"Content-Length: -3\r\n\r\nabc",
        OK + b"Content-Length: abc\r\n\r\nabc",
        OK + b"Content-Length: 4\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        OK + b"X: " + b"y" * HEADER_BYTES_MAX + b"\r\n\r\n",
        OK + b"X: y\r\n" * (HEADER_BYTES_MAX // 6 + 1) + b"\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation:\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nConnection: close\r\n\r\n" + b"x" * (UNWANTED_BYTES_MAX + 1),
    ],
)
def test_no_answer_to_a_get(reply: bytes) -> None:
    refused(reply)


def test_a_reset_instead_of_an_answer_may_be_tried_again() -> None:
    assert refused(RESET).retryable


@pytest.mark.parametrize("length", ["9223372036854775807", "18446744073709551616", "9" * 5000])
def test_a_length_beyond_all_bounds_is_too_large(length: str) -> None:
    assert isinstance(refused(OK + f"Content-Length: {length}\r\n\r\n".encode()), OriginTooLarge)


def test_endless_early_answers_come_to_the_header_limit() -> None:
    assert isinstance(refused(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 3000), OriginBadReply)
