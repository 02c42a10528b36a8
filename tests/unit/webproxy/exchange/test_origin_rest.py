"""OriginRest: exactly the bytes that the client still misses, or a body that ends short."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields, stored_response
from tests.support.scripted_origin import OriginAnswer, ScriptedOrigin
from tests.support.streams import ScriptedStream, source_of
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, ClientGone, OriginFailing, OriginTimeout, OriginUnreachable
from webproxy.exchange.body_transfer import BodyTransfer, SourceLost
from webproxy.http.fields import Fields
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule
from webproxy.store.store import NoStore

BODY = bytes(range(250)) * 40
SIZE, POSITION = len(BODY), 3000
STORED = stored_response(b'ETag: "1"', body_bytes=SIZE)
ASKED = OriginRequest(url="http://o/x", fields=fields(b"Accept: */*", b"Range: bytes=0-1"))


def head(status: int, lines: Fields, length: int) -> OriginResponse:
    """The head of a response."""
    return OriginResponse(status=status, fields=lines, length=length)


def rest_of(position: int = POSITION, end: int = SIZE, *lines: bytes, size: int = SIZE) -> OriginResponse:
    """A 206 with these bytes; `lines` replace its validator."""
    content_range = b"Content-Range: bytes %d-%d/%d" % (position, end - 1, size)
    return head(206, fields(content_range, *(lines or (b'ETag: "1"',))), end - position)


def lost_body(stream: ScriptedStream, first: int = POSITION, end: int = SIZE) -> BodyTransfer:
    """A body that the cache has lost."""
    body = BodyTransfer(stream, b"/x", SIZE, 1, source_of(NoStore()), first, end)
    with pytest.raises(SourceLost) as lost:
        body.resume()
    assert (lost.value.body, body.position) == (body, first)
    return body


def send(origin: ScriptedOrigin, body: BodyTransfer, stored: StoredResponse = STORED, tries: int = 1) -> int:
    """Send the rest of the body; returns how often it had to wait."""
    steps = origin.rest().send(body, "lost", stored, ASKED, OriginRule(url="http://o", tries=tries))
    return sum(1 for _ in steps)


def test_the_rest_is_asked_for_by_the_validator_and_sent() -> None:
    origin, stream = ScriptedOrigin(OriginAnswer(rest_of(), (BODY[POSITION:6000], BODY[6000:]))), ScriptedStream()
    body = lost_body(stream)
    send(origin, body)
    assert stream.received == BODY[POSITION:]
    assert body.position == body.end
    asked = origin.asked[0].fields
    assert (asked.get_all(b"range"), asked.get(b"if-range")) == ([b"bytes=3000-"], b'"1"')


def test_of_a_range_no_more_is_asked_for_than_it_has() -> None:
    origin, stream = ScriptedOrigin(OriginAnswer(rest_of(POSITION, 5000), (BODY[POSITION:5000],))), ScriptedStream()
    send(origin, lost_body(stream, POSITION, 5000))
    assert stream.received == BODY[POSITION:5000]
    assert origin.asked[0].fields.get(b"range") == b"bytes=3000-4999"


def test_a_body_that_is_all_there_needs_no_origin() -> None:
    origin, stream = ScriptedOrigin(), ScriptedStream()
    send(origin, BodyTransfer(stream, b"/x", SIZE, 1, source_of(NoStore()), SIZE, SIZE))
    assert (origin.asked, stream.received) == ([], b"")


def test_a_client_that_does_not_read_is_waited_for() -> None:
    origin, stream = ScriptedOrigin(OriginAnswer(rest_of(), (BODY[POSITION:],))), ScriptedStream(2000)
    steps = origin.rest().send(lost_body(stream), "lost", STORED, ASKED, OriginRule(url="http://o"))
    next(steps)
    assert stream.received == BODY[POSITION : POSITION + 2000]
    stream.allowance = SIZE
    assert list(steps) == []
    assert stream.received == BODY[POSITION:]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OriginAnswer(head(200, fields(b'ETag: "1"'), SIZE), (BODY,)), id="all of it"),
        pytest.param(OriginAnswer(head(412, Fields(), 0)), id="412"),
        pytest.param(OriginAnswer(head(404, Fields(), 0)), id="404"),
        pytest.param(OriginAnswer(rest_of(POSITION, SIZE, b'ETag: "2"'), (BODY[POSITION:],)), id="another validator"),
        pytest.param(OriginAnswer(rest_of(POSITION, SIZE, b'ETag: W/"1"'), (BODY[POSITION:],)), id="a weak one"),
        pytest.param(OriginAnswer(rest_of(POSITION, SIZE, b"X: 1"), (BODY[POSITION:],)), id="none"),
        pytest.param(OriginAnswer(rest_of(POSITION - 1), (BODY[POSITION - 1 :],)), id="too early"),
        pytest.param(OriginAnswer(rest_of(POSITION + 1), (BODY[POSITION + 1 :],)), id="too late"),
        pytest.param(OriginAnswer(rest_of(POSITION, SIZE - 1), (BODY[POSITION:-1],)), id="not to the end"),
        pytest.param(OriginAnswer(rest_of(size=SIZE + 1), (BODY[POSITION:],)), id="another length"),
        pytest.param(
            OriginAnswer(rest_of(POSITION, SIZE, b'ETag: "1"', b"Content-Encoding: gzip"), (BODY[POSITION:],)),
            id="another coding",
        ),
        pytest.param(OriginAnswer(None, (), OriginUnreachable("no")), id="no answer"),
    ],
)
def test_of_what_is_not_the_rest_not_one_byte_is_sent(answer: OriginAnswer) -> None:
    stream = ScriptedStream()
    with pytest.raises(BodyCutShort, match=r"^lost; from the origin: "):
        send(ScriptedOrigin(answer), lost_body(stream))
    assert stream.received == b""


BREAKS = OriginUnreachable("reset", retryable=True)
SILENT = OriginTimeout("stalled")


@pytest.mark.parametrize("error", [None, BREAKS], ids=["ends", "breaks"])
@pytest.mark.parametrize("tries", [1, 2])
def test_a_rest_that_breaks_off_at_the_last_try_ends_the_body(error: OriginUnreachable | None, tries: int) -> None:
    answers = [OriginAnswer(rest_of(), (BODY[POSITION:4000],), error), OriginAnswer(rest_of(4000), (), error)]
    origin, stream = ScriptedOrigin(*answers), ScriptedStream()
    body = lost_body(stream)
    with pytest.raises(BodyCutShort, match=r"^lost; from the origin: "):
        send(origin, body, tries=tries)
    assert stream.received == BODY[POSITION:4000]
    assert body.position == 4000
    assert len(origin.asked) == tries


def test_a_rest_that_breaks_off_is_asked_for_again_from_there_on() -> None:
    answers = (
        OriginAnswer(rest_of(), (BODY[POSITION:4000],), BREAKS),
        OriginAnswer(None, (), OriginUnreachable("refused", retryable=True)),
        OriginAnswer(None, (), OriginFailing("fails", cause="refused", status=503)),
        OriginAnswer(head(503, Fields(), 0)),
        OriginAnswer(rest_of(4000), (BODY[4000:6000],)),
        OriginAnswer(rest_of(6000), (BODY[6000:],)),
    )
    origin, stream = ScriptedOrigin(*answers), ScriptedStream()
    send(origin, lost_body(stream), tries=len(answers))
    assert stream.received == BODY[POSITION:]
    ranges = [asked.fields.get(b"range") for asked in origin.asked]
    assert ranges == [b"bytes=3000-", *[b"bytes=4000-"] * 4, b"bytes=6000-"]
    assert {asked.fields.get(b"if-range") for asked in origin.asked} == {b'"1"'}
    assert origin.pauses_s[0] == 0.0
    assert 0.0 < origin.pauses_s[1] < origin.pauses_s[3] < origin.pauses_s[5], "the pauses grow"


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(OriginAnswer(rest_of(4000), (BODY[4000:5000],), SILENT), id="silent"),
        pytest.param(OriginAnswer(rest_of(4000, SIZE, b'ETag: "2"'), (BODY[4000:],)), id="another validator"),
        pytest.param(OriginAnswer(head(404, Fields(), 0)), id="404"),
        pytest.param(OriginAnswer(rest_of(), (BODY[POSITION:],)), id="the first rest again"),
    ],
)
def test_what_another_try_does_not_help_ends_it(second: OriginAnswer) -> None:
    first = OriginAnswer(rest_of(), (BODY[POSITION:4000],), BREAKS)
    origin, stream = ScriptedOrigin(first, second), ScriptedStream()
    with pytest.raises(BodyCutShort):
        send(origin, lost_body(stream), tries=9)
    assert BODY[POSITION:].startswith(stream.received)
    assert len(origin.asked) == 2


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(stored_response(body_bytes=SIZE), id="no validator"),
        pytest.param(stored_response(b'ETag: W/"1"', body_bytes=SIZE), id="a weak one"),
        pytest.param(stored_response(b'ETag: "1"', b"Accept-Ranges: none", body_bytes=SIZE), id="ranges refused"),
        pytest.param(stored_response(b'ETag: "1"', status=404, body_bytes=SIZE), id="no 200"),
        pytest.param(stored_response(b'ETag: "1"', authoritative=True, body_bytes=SIZE), id="the cache's own file"),
    ],
)
def test_what_cannot_be_told_to_be_the_same_is_not_asked_for(stored: StoredResponse) -> None:
    origin = ScriptedOrigin()
    with pytest.raises(BodyCutShort, match=r"^lost$"):
        send(origin, lost_body(ScriptedStream()), stored)
    assert origin.asked == []


def test_a_client_that_leaves_ends_it() -> None:
    origin = ScriptedOrigin(OriginAnswer(rest_of(), (BODY[POSITION:],)))
    stream = ScriptedStream(0)
    steps = origin.rest().send(lost_body(stream), "lost", STORED, ASKED, OriginRule(url="http://o"))
    next(steps)
    steps.close()
    assert stream.received == b""


def test_a_client_that_is_gone_is_told_apart() -> None:
    class GoneStream(ScriptedStream):
        """Its connection is reset."""

        def send_file(self, fd: int, offset: int, count: int) -> int:
            """As ClientStream.send_file()."""
            raise ClientGone("reset")

        def send_some(self, data: bytes, *, more: bool = False) -> int:
            """As ClientStream.send_some()."""
            raise ClientGone("reset")

    with pytest.raises(ClientGone):
        send(ScriptedOrigin(OriginAnswer(rest_of(), (BODY[POSITION:],))), lost_body(GoneStream()))
