"""What is sent in steps: interim responses, and bodies that arrive while they are sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.http_values import fields
from tests.support.steps import finish, wait_for
from tests.support.streams import ScriptedStream, client_stream
from tests.support.tcp import at_end, connected
from webproxy.errors import BodyCutShort, OriginBadReply
from webproxy.exchange import spooled_body
from webproxy.exchange.spooled_body import send_body, send_data, send_interim, send_spooled
from webproxy.fetch.spool import BodyFound, Interim, Spool, SpoolReader
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.job import Event

CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
def spool() -> Iterator[Spool]:
    made = Spool(None)
    made.answer(BodyFound(0))
    yield made
    made.end()


@pytest.fixture
def reader(spool: Spool) -> Iterator[SpoolReader]:
    made = spool.reader()
    made.news()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("version", "status", "sent"),
    [
        ((1, 1), 103, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ((1, 1), 102, b"HTTP/1.1 102 Processing\r\nLink: </a>\r\n\r\n"),
        ((1, 1), 100, b""),
        ((1, 0), 103, b""),
    ],
)
def test_interim_answers(version: tuple[int, int], status: int, sent: bytes) -> None:
    request = RequestHead(b"GET", b"/", version, Fields())
    interim = Interim(status, fields(b"Link: </a>", b"Connection: X", b"X: 1"))
    with connected() as (fd, client):
        finish(send_interim(client_stream(fd), request, interim))
        sockets.close(fd)
        assert at_end(client) == sent


def test_data_that_is_taken_in_parts_waits_for_its_client() -> None:
    stream = ScriptedStream(3)
    steps = send_data(stream, b"abcdef")
    assert [next(steps), next(steps)] == [Event.WRITABLE] * 2
    stream.allowance = 10
    finish(steps)
    assert stream.received == b"abcdef"


def test_a_body_waits_for_its_source_and_its_client_by_turns(spool: Spool, reader: SpoolReader) -> None:
    stream = ScriptedStream(4)
    steps = send_spooled(stream, reader, 6)
    assert next(steps) is reader
    spool.write(b"abc")
    assert next(steps) is reader
    spool.write(b"def")
    assert next(steps) is Event.WRITABLE
    stream.allowance = 100
    finish(steps)
    assert stream.received == b"abcdef"


@pytest.mark.parametrize(
    ("framing", "length", "sent"),
    [
        (b"Content-Length: 6\r\n", 6, b"abcdef"),
        (CHUNKED, None, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
        (b"", None, b"abcdef"),
        (b"", 0, b""),
    ],
    ids=["length", "chunked", "to the close", "without a body"],
)
def test_every_framing(framing: bytes, length: int | None, sent: bytes, spool: Spool, reader: SpoolReader) -> None:
    stream = ScriptedStream()
    steps = send_body(stream, reader, framing, length)
    spool.write(b"abc")
    for _ in range(1 if sent else 0):
        assert next(steps) is reader
    spool.write(b"def")
    spool.end()
    finish(steps)
    assert stream.received == sent


@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n", CHUNKED, b""])
@pytest.mark.parametrize("allowance", range(1, 12))
def test_a_client_that_pauses_after_any_byte_gets_every_byte_once(
    framing: bytes, allowance: int, spool: Spool, reader: SpoolReader
) -> None:
    spool.write(b"abcdef")
    spool.end()
    whole = ScriptedStream()
    finish(send_body(whole, spool.reader(), framing, 6 if framing.startswith(b"Content") else None))
    stream = ScriptedStream(0)
    for wait in send_body(stream, reader, framing, 6 if framing.startswith(b"Content") else None):
        assert wait is Event.WRITABLE
        stream.allowance += allowance
    assert stream.received == whole.received


def test_a_body_that_keeps_coming_lets_others_have_the_worker(
    spool: Spool, reader: SpoolReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_body, "SLICE_NS", -1)
    monkeypatch.setattr(spooled_body, "PIECE_BYTES", 2)
    spool.write(b"abcdef")
    stream = ScriptedStream()
    assert list(send_spooled(stream, reader, 6)) == [Event.TURN] * 3
    assert stream.received == b"abcdef"


def test_a_body_to_the_close_that_breaks_off_is_reset(spool: Spool, reader: SpoolReader) -> None:
    spool.write(b"abc")
    spool.end(OriginBadReply("cut"))
    with connected(closing=True) as (fd, client):
        with pytest.raises(BodyCutShort):
            finish(send_body(client_stream(fd), reader, b"", None), fd)
        with pytest.raises(ConnectionResetError):
            at_end(client)


def test_a_slow_source_is_not_a_slow_client(spool: Spool, reader: SpoolReader) -> None:
    """The time for which a client had nothing to read does not count against it."""
    with connected(server_buffer_bytes=4096, client_buffer_bytes=4096, closing=True) as (fd, client):
        stream = client_stream(fd, RateLimit(1 << 30, 0.0))
        stream.check_rate()
        steps = send_spooled(stream, reader, None)
        assert next(steps) is reader
        spool.write(bytes(1 << 20))
        assert next(steps) is Event.WRITABLE
        stream.check_rate()
        client.shutdown(socket.SHUT_RD)
        wait_for(Event.TURN)
