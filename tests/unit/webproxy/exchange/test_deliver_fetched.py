"""send_fetched: one answer of an origin as it goes to its first asker, and to who shares it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.http_sockets import http_connection
from tests.support.http_values import NOW, fields, request, stored_response
from tests.support.steps import finish
from tests.support.tcp import connected
from webproxy.caching.decision import Action, Decision
from webproxy.caching.validators import Condition, evaluate_conditions
from webproxy.errors import BodyCutShort, OriginBadReply
from webproxy.exchange.context import RequestContext
from webproxy.exchange.deliver_fetched import send_fetched
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.fetch.spool import Head, Spool
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule, Target
from webproxy.transport import sockets
from webproxy.transport.job import KEEP_ALIVE, RequestOutcome

BODY = b"0123456789" * 1000
RECEIVED = fields(b'ETag: "1"', b"Set-Cookie: a")
KEPT = stored_response(b'ETag: "1"', body_bytes=len(BODY))
TARGET = Target(b"/x", OriginRule(url="http://o"), "http://o", b"/x", b"/x")
HEADS = ResponseHeads(b"us")
DECISION = Decision(Action.FETCH, b"uri-miss")
Send = Callable[..., tuple[RequestOutcome, bytes]]


def head(*, length: int | None = len(BODY), status: int = 200, is_stored: bool = True) -> Head:
    response = OriginResponse(status=status, fields=RECEIVED, length=length)
    return Head(response, KEPT, is_stored, is_stored, b"" if is_stored else b"no-store")


@pytest.fixture
def spool() -> Iterator[Spool]:
    made = Spool(None)
    made.write(BODY)
    yield made
    made.end()


@pytest.fixture
def send(spool: Spool) -> Send:
    """Answer a request of these fields from the spool; the result, and all that the client got."""

    def answer(answered: Head, *wishes: bytes, collapsed: bool = False) -> tuple[RequestOutcome, bytes]:
        reader = spool.join()
        assert reader is not None
        spool.end()
        with connected(server_buffer_bytes=4 * len(BODY)) as (fd, client):
            connection = http_connection(fd)
            context = RequestContext(connection, request(*wishes), STAYS, NOW, HEADS, TARGET)
            try:
                condition = evaluate_conditions(context.request, answered.stored, NOW)
                steps = send_fetched(context, reader, answered, DECISION, condition, collapsed=collapsed)
                outcome = finish(steps, fd)
            finally:
                reader.close()
                sockets.close(fd)
            return outcome, b"".join(iter(lambda: client.recv(65_536), b""))

    return answer


def test_the_first_asker_gets_all_that_came(send: Send) -> None:
    outcome, sent = send(head())
    assert outcome is KEEP_ALIVE
    assert b"Set-Cookie: a\r\n" in sent
    assert b"us; fwd=uri-miss; fwd-status=200; stored\r\n" in sent
    assert sent.endswith(b"\r\n\r\n" + BODY)


def test_who_shares_it_gets_what_is_stored(send: Send) -> None:
    _, sent = send(head(), collapsed=True)
    assert b"Set-Cookie" not in sent
    assert b"Age: 1\r\n" in sent
    assert b"stored; collapsed\r\n" in sent


def test_a_body_of_unknown_length_goes_in_chunks(send: Send) -> None:
    _, sent = send(head(length=None))
    assert sent.endswith(b"\r\n\r\n2710\r\n" + BODY + b"\r\n0\r\n\r\n")


def test_a_part_of_it(send: Send) -> None:
    _, sent = send(head(), b"Range: bytes=5000-5009")
    assert sent.startswith(b"HTTP/1.1 206 ")
    assert sent.endswith(b"\r\n\r\n" + BODY[5000:5010])


@pytest.mark.parametrize(
    ("wish", "status"),
    [(b'If-None-Match: "1"', b"304"), (b"Range: bytes=10000-", b"416"), (b"Range: bytes=-1", b"206")],
)
def test_conditions_and_ranges_of_what_is_not_stored(send: Send, wish: bytes, status: bytes) -> None:
    assert send(head(is_stored=False), wish)[1].startswith(b"HTTP/1.1 " + status)


def test_an_error_is_subject_to_no_terms(send: Send) -> None:
    assert send(head(status=404), b"Range: bytes=-1", b'If-None-Match: "1"')[1].startswith(b"HTTP/1.1 404 ")


def test_a_body_that_ends_short(spool: Spool, send: Send) -> None:
    with pytest.raises(BodyCutShort):
        send(head(length=len(BODY) + 1))


def test_a_fetch_that_fails_in_mid_body(spool: Spool) -> None:
    reader = spool.join()
    assert reader is not None
    spool.end(OriginBadReply("cut"))
    with connected(server_buffer_bytes=4 * len(BODY), closing=True) as (fd, _client):
        connection = http_connection(fd)
        context = RequestContext(connection, request(), STAYS, NOW, HEADS, TARGET)
        with pytest.raises(BodyCutShort):
            finish(send_fetched(context, reader, head(length=None), DECISION, Condition.PROCEED, collapsed=False))
    reader.close()
