"""Hop for the HTTP front: any method, bodies both ways, and answers passed on as they are."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from tests.support.rawserver import RawServer, Step
from tests.support.sinks import CollectingSink, fetch, origin_client
from tests.support.waiting import WATCHDOG_S
from webproxy.errors import (
    BodyCutShort,
    ClientGone,
    FetchAborted,
    OriginBadReply,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginUnreachable,
)
from webproxy.http.fields import Field, Fields
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(700_001)
OK = b"HTTP/1.1 200 OK\r\n"
UPLOADS = {"POST", "PUT", "PATCH", "GET", "FROB"}


class BytesBody:
    """A request's body in memory, of which the client may break off."""

    def __init__(self, data: bytes, length: int | None = None, breaks_with: Exception | None = None) -> None:
        self.length = length
        self.reads = 0
        self._data = data
        self._breaks_with = breaks_with

    def read(self, size: int) -> bytes:
        self.reads += 1
        data, self._data = self._data[:size], self._data[size:]
        if not data and self._breaks_with is not None:
            raise self._breaks_with
        return data


def asked(url: str, *lines: Field, **rest: Any) -> tuple[OriginResponse, CollectingSink]:
    sink = CollectingSink()
    return fetch(OriginRequest(url=url, fields=Fields(lines), **rest), sink), sink


def answer(route: Route, *lines: Field, **rest: Any) -> tuple[OriginResponse, CollectingSink]:
    with OriginStub({"/x": route}) as origin:
        return asked(f"{origin.url}/x", *lines, **rest)


def raw_answer(*script: Step, **rest: Any) -> tuple[OriginResponse, CollectingSink, bytes]:
    with RawServer(list(script)) as server:
        response, sink = asked(f"http://127.0.0.1:{server.port}/x", **rest)
        return response, sink, server.requests[0]


# -- what is asked ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"FROB", b"get"])
def test_nothing_is_asked_that_was_not_asked_for(method: bytes) -> None:
    _, _, request = raw_answer(OK + b"Content-Length: 0\r\n\r\n", method=method)
    first, host, *rest = request.split(b"\r\n")
    assert first == method + b" /x HTTP/1.1"
    assert host.startswith(b"Host: 127.0.0.1:")
    assert rest == [b"", b""]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_methods_with_content_say_that_there_is_none(method: bytes) -> None:
    _, _, request = raw_answer(OK + b"Content-Length: 0\r\n\r\n", method=method)
    assert request.split(b"\r\n")[2:] == [b"Content-Length: 0", b"", b""]


def test_fields_go_out_byte_for_byte() -> None:
    lines = (
        (b"X-Odd", b"\xe9 ;\t,"),
        (b"x-empty", b""),
        (b"User-Agent", b"me"),
        (b"Accept", b"a/b"),
        (b"Host", b"h:1"),
    )
    with RawServer([OK + b"Content-Length: 0\r\n\r\n"]) as server:
        asked(f"http://127.0.0.1:{server.port}/y/../%2E/x?a=%2f..", *lines)
        sent = server.requests[0].split(b"\r\n")
    assert sent[0] == b"GET /y/../%2E/x?a=%2f.. HTTP/1.1"
    assert sorted(sent[1:-2]) == sorted(
        [b"X-Odd: \xe9 ;\t,", b"x-empty:", b"User-Agent: me", b"Accept: a/b", b"Host: h:1"]
    )


@pytest.mark.parametrize("field", [(b"X", b"a\r\nY: b"), (b"X\nY", b"a"), (b"X", b"a\0")], ids=repr)
def test_what_would_forge_a_line_is_refused_before_a_packet(field: Field) -> None:
    with OriginStub({}) as origin:
        with pytest.raises(OriginRefused):
            asked(f"{origin.url}/x", field)
        with pytest.raises(OriginError):
            asked(f"{origin.url}/x HTTP/1.1\r\nX: y")
        assert origin.requests == []


def test_the_rules_fields_are_added_and_only_for_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.origin.hop.may_connect", lambda address, *, named_by_operator: True)
    ours = ((b"Authorization", b"Bearer ours"),)
    with OriginStub({"/y": Route(body=b"there")}) as other:
        routes = {"/x": Route(redirect_to="/z"), "/z": Route(redirect_to=f"{other.url}/y")}
        with OriginStub(routes) as origin:
            fields = Fields(((b"authorization", b"Basic theirs"), (b"X-A", b"b")))
            request = OriginRequest(url=f"{origin.url}/x", fields=fields, follow_redirects=True)
            fetch(request, CollectingSink(), add_fields=ours)
            assert [seen.headers["authorization"] for seen in origin.requests] == ["Bearer ours", "Bearer ours"]
        (seen,) = other.requests
    assert "authorization" not in seen.headers
    assert seen.headers["x-a"] == "b"


def test_a_host_that_nobody_named_must_be_a_public_one() -> None:
    with OriginStub({"/x": Route()}) as origin:
        with pytest.raises(OriginRefused, match="not allowed"):
            asked(f"{origin.url}/x", named_by_operator=False)
        assert origin.requests == []


# -- bodies of requests -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", sorted(UPLOADS))
@pytest.mark.parametrize("size", [0, 1, len(BODY)])
@pytest.mark.parametrize("told", [True, False], ids=["length", "chunked"])
def test_a_body_goes_out_whole_with_any_method(method: str, size: int, told: bool) -> None:
    body = BytesBody(BODY[:size], size if told else None)
    with OriginStub({"/x": Route(methods=UPLOADS, status=201, body=b"made")}) as origin:
        fields = ((b"Content-Type", b"a/b"), (b"Content-Length", b"77"), (b"Transfer-Encoding", b"gzip"))
        response, sink = asked(f"{origin.url}/x", *fields, method=method.encode(), body=body)
        (request,) = origin.requests
    assert (response.status, sink.body) == (201, b"made")
    assert (request.method, request.body, request.headers["content-type"]) == (method, BODY[:size], "a/b")
    framing = {name: value for name, value in request.fields if name in ("Content-Length", "Transfer-Encoding")}
    assert framing == ({"Content-Length": str(size)} if told else {"Transfer-Encoding": "chunked"})
    assert "expect" not in request.headers


def test_the_body_of_a_head_is_not_sent() -> None:
    body = BytesBody(b"abc", 3)
    _, _, request = raw_answer(OK + b"Content-Length: 5\r\n\r\n", method=b"HEAD", body=body)
    assert request.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in request
    assert body.reads == 0


@pytest.mark.parametrize("length", [None, 10], ids=["chunked", "length"])
def test_a_client_that_breaks_off_leaves_the_origin_no_whole_body(length: int | None) -> None:
    gone = ClientGone("reset")
    with OriginStub({"/x": Route(methods=UPLOADS)}) as origin:
        with pytest.raises(ClientGone) as caught:
            asked(f"{origin.url}/x", method=b"PUT", body=BytesBody(b"abc", length, gone))
        assert caught.value is gone
        asked(f"{origin.url}/x")
        assert [request.method for request in origin.requests] == ["GET"]


def test_a_body_short_of_its_length_is_no_body() -> None:
    with OriginStub({"/x": Route(methods=UPLOADS)}) as origin:
        with pytest.raises(BodyCutShort):
            asked(f"{origin.url}/x", method=b"PUT", body=BytesBody(b"abc", 10))
        assert origin.requests == []


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not make libcurl give up waiting for the origin's word."""
    monkeypatch.setattr("webproxy.origin.hop.CONTINUE_WAIT_MS", 60_000)


@pytest.mark.usefixtures("patient")
def test_the_hundred_is_passed_on_and_the_body_sent() -> None:
    with OriginStub({"/x": Route(methods=UPLOADS)}) as origin:
        body = BytesBody(b"abc", 3)
        response, sink = asked(f"{origin.url}/x", (b"Expect", b"100-continue"), method=b"PUT", body=body)
        (request,) = origin.requests
    assert (request.headers["expect"], request.body) == ("100-continue", b"abc")
    assert (response.status, sink.interims) == (200, [(100, Fields())])


def test_an_origin_that_says_nothing_gets_the_body_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.origin.hop.CONTINUE_WAIT_MS", 1)
    body = BytesBody(b"abc", 3)
    with OriginStub({"/x": Route(methods=UPLOADS, continues=False)}) as origin:
        asked(f"{origin.url}/x", (b"Expect", b"100-continue"), method=b"PUT", body=body)
        assert origin.requests[0].body == b"abc"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("status", "text"), [(417, b""), (413, b"no"), (401, b"no")])
def test_an_expectation_that_fails_costs_no_body_and_no_second_request(status: int, text: bytes) -> None:
    body = BytesBody(b"abc", 3)
    route = Route(methods=UPLOADS, status=status, body=b"no", reads_body=False, headers={"X-A": "b"})
    with OriginStub({"/x": route}) as origin:
        response, sink = asked(f"{origin.url}/x", (b"Expect", b"100-continue"), method=b"PUT", body=body)
        assert origin.count("/x") == 1
    assert (response.status, response.length, sink.body) == (status, len(text), text)
    assert response.fields.get(b"content-length") == b"%d" % len(text)
    assert response.fields.get(b"x-a") == b"b"
    assert body.reads == 0


def test_an_answer_before_the_end_of_the_body_is_an_answer() -> None:
    route = Route(methods=UPLOADS, status=413, body=b"no", reads_body=False)
    response, sink = answer(route, method=b"PUT", body=BytesBody(b"x" * 300_000, 300_000))
    assert (response.status, sink.body) == (413, b"no")


# -- answers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_passed_on(status: int) -> None:
    route = Route(status=status, headers={"Location": "/y", "X-A": "b"}, body=b"look there")
    with OriginStub({"/x": route}) as origin:
        response, sink = asked(f"{origin.url}/x")
        assert len(origin.requests) == 1
    assert (response.status, response.fields.get(b"location")) == (status, b"/y")
    assert sink.responses == [response]
    assert sink.body == (b"" if status == 304 else b"look there")


def test_fields_come_as_they_were_sent() -> None:
    reply = b"HTTP/1.0 299 Just so\r\nX-B: 1\r\nset-cookie: a\r\nSet-Cookie: b\r\nX-C: a\r\n  folded\r\nX-E:\r\n\r\nabc"
    response, sink, _ = raw_answer(reply)
    assert (response.status, response.reason, response.http_version, response.length) == (299, b"Just so", b"1.0", None)
    assert response.fields.lines == (
        (b"X-B", b"1"),
        (b"set-cookie", b"a"),
        (b"Set-Cookie", b"b"),
        (b"X-C", b"a folded"),
        (b"X-E", b""),
    )
    assert sink.body == b"abc"


def test_the_head_is_handed_over_before_the_body_has_come() -> None:
    class Waiting(CollectingSink):
        begun = threading.Event()

        def begin(self, response: OriginResponse) -> bool:
            self.begun.set()
            return super().begin(response)

    gate, sink = threading.Event(), Waiting()
    with OriginStub({"/x": Route(body=b"abc", hold=gate, hold_at=0)}) as origin, origin_client() as client:
        client.begin(OriginRequest(url=f"{origin.url}/x"), sink)
        assert sink.begun.wait(WATCHDOG_S)
        assert not gate.is_set()
        gate.set()
        sink.wait()
    assert sink.body == b"abc"


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304)])
def test_answers_without_a_body_leave_the_connection_usable(method: bytes, status: int, framing: Framing) -> None:
    headers = {"Content-Length": "9"} if status == 304 else {}
    route = Route(status=status, body=BODY, framing=framing, headers=headers)
    with OriginStub({"/x": route}) as origin, origin_client() as client:
        for _ in range(2):
            sink = CollectingSink()
            response = client.fetch(OriginRequest(url=f"{origin.url}/x", method=method), sink)
            assert (response.status, response.length, sink.body) == (status, 0, b"")
            assert sink.responses == [response]
        assert origin.connection_count == 1
    if status == 304:
        assert response.fields.get(b"content-length") == b"9"
    elif method == b"HEAD" and framing is Framing.LENGTH:
        assert response.fields.get(b"content-length") == b"%d" % len(BODY)


def test_bytes_behind_an_answer_are_never_the_next_answer() -> None:
    """A 204 has no body, whatever it says: what follows it must not be taken for what the next request gets."""
    forged = b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n" + OK + b"Content-Length: 6\r\n\r\nforged"
    replies: tuple[list[Step], ...] = [forged, threading.Event()], [OK + b"Content-Length: 4\r\n\r\ntrue"]
    with RawServer(*replies) as server, origin_client() as client:
        url = f"http://127.0.0.1:{server.port}/x"
        assert client.fetch(OriginRequest(url=url), CollectingSink()).status == 204
        sink = CollectingSink()
        client.fetch(OriginRequest(url=url), sink)
    assert sink.body == b"true"


def test_a_part_is_an_answer_like_any_other() -> None:
    response, sink = answer(Route(body=BODY), (b"Range", b"bytes=10-19"))
    assert (response.status, response.length, sink.body) == (206, 10, BODY[10:20])
    assert response.fields.get(b"content-range") == b"bytes 10-19/%d" % len(BODY)


@pytest.mark.parametrize("status", [200, 206, 404, 500])
def test_a_short_body_is_an_error_with_any_status(status: int) -> None:
    with pytest.raises(OriginBadReply) as caught:
        answer(Route(status=status, body=BODY, truncate_at=1000))
    assert caught.value.retryable


def test_interim_answers_come_first() -> None:
    route = Route(body=b"abc", interim=[(103, {"Link": "</a>"}), (102, {}), (103, {"Link": "</b>"})])
    response, sink = answer(route)
    assert [(status, fields.get(b"link")) for status, fields in sink.interims] == [
        (103, b"</a>"),
        (102, None),
        (103, b"</b>"),
    ]
    assert (response.status, response.fields.get(b"link"), sink.body) == (200, None, b"abc")


def test_trailers_come_at_the_end() -> None:
    trailers = (("Digest", "z"), ("X", "1"), ("X", "2"))
    response, sink = answer(Route(body=b"abc", framing=Framing.CHUNKED, trailers=trailers))
    assert response.trailers.lines == ((b"Digest", b"z"), (b"X", b"1"), (b"X", b"2"))
    assert len(sink.responses[0].trailers) == 0
    assert b"digest" not in response.fields


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Content-Length : 1\r\n\r\nx",
        OK + b"Content-Length: 1, 1\r\n\r\nx",
        OK + b" folded\r\nContent-Length: 1\r\n\r\nx",
        OK + b"X: a\0b\r\nContent-Length: 1\r\n\r\nx",
        OK + b"X: a\rb\r\nContent-Length: 1\r\n\r\nx",
        OK + b"X: y\r\n" * 257 + b"Content-Length: 1\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nno colon\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX y: z\r\n\r\n",
    ],
    ids=repr,
)
def test_an_answer_in_doubt_is_none(reply: bytes) -> None:
    with pytest.raises(OriginBadReply):
        raw_answer(reply)


def test_no_maximum_is_no_limit() -> None:
    sink = CollectingSink()
    with OriginStub({"/x": Route(body=BODY)}) as origin:
        fetch(OriginRequest(url=f"{origin.url}/x"), sink, object_bytes_max=None)
    assert sink.body == BODY


def test_a_maximum_is_about_bodies_that_come() -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin:
        request = OriginRequest(url=f"{origin.url}/x", method=b"HEAD")
        assert fetch(request, CollectingSink(), object_bytes_max=5).length == 0


# -- what must not be sent twice ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "body", "retryable"),
    [(b"GET", None, True), (b"DELETE", None, True), (b"POST", None, False), (b"PUT", b"abc", False)],
)
@pytest.mark.parametrize("fault", ["reset", "silence", "short"])
def test_only_what_may_be_sent_twice_is_called_retryable(
    method: bytes, body: bytes | None, retryable: bool, fault: str
) -> None:
    routes = {
        "reset": Route(methods={method.decode()}, body=b"abc", reset_at=0),
        "silence": Route(methods={method.decode()}, hold=threading.Event(), hold_head=True),
        "short": Route(methods={method.decode()}, body=b"abc", truncate_at=1),
    }
    source = None if body is None else BytesBody(body, len(body))
    with OriginStub({"/x": routes[fault]}) as origin:
        request = OriginRequest(url=f"{origin.url}/x", method=method, body=source)
        with pytest.raises(OriginError) as caught:
            fetch(request, CollectingSink(), stall_s=0.3 if fault == "silence" else 30.0)
    assert caught.value.retryable is (retryable and fault != "silence"), "silence only grows if it is asked again"
    assert isinstance(caught.value, OriginTimeout) is (fault == "silence")


def test_what_never_reached_the_origin_may_be_tried_again() -> None:
    with pytest.raises(OriginUnreachable) as caught:
        asked("http://no-such-host.invalid/x", method=b"POST", body=BytesBody(b"abc", 3))
    assert caught.value.retryable


@pytest.mark.parametrize(("method", "requests"), [(b"GET", 2), (b"POST", 1)])
def test_a_kept_connection_that_died_is_used_for_what_may_be_sent_twice_only(method: bytes, requests: int) -> None:
    """The second request of a kept connection is read and never answered; libcurl then asks again on a new one."""
    first = OK + b"Content-Length: 1\r\n\r\n1"

    class Dying(RawServer):
        def _serve(self, connection: Any, script: list[Step]) -> None:
            with connection:
                self._read_request(connection)
                connection.sendall(script[0])
                if script is self._scripts[0]:
                    self._read_request(connection)

    with Dying([first], [OK + b"Content-Length: 1\r\n\r\n2"]) as server, origin_client() as client:
        url = f"http://127.0.0.1:{server.port}/x"
        client.fetch(OriginRequest(url=url), CollectingSink())
        sink = CollectingSink()
        client.fetch(OriginRequest(url=url, method=method), sink)
        assert sink.body == b"2"
        assert sum(request.startswith(method) for request in server.requests[1:]) == requests


def test_who_left_ends_an_upload_that_the_origin_does_not_take() -> None:
    gate = threading.Event()
    sink = CollectingSink()
    with RawServer([gate], reads_request=False) as server, origin_client() as client:
        body = BytesBody(b"x" * 50_000_000, 50_000_000)
        request = OriginRequest(url=f"http://127.0.0.1:{server.port}/x", method=b"PUT", body=body)
        client.begin(request, sink)
        assert server.reached.wait(WATCHDOG_S)
        sink.leave()
        with pytest.raises(FetchAborted):
            sink.wait()
