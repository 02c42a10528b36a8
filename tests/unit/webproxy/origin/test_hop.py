"""Hop against a scripted origin: does every kind of answer, and every way to fail, come out as what it is?"""

from __future__ import annotations

import errno
import gc
import gzip
import os
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.failing import refusing
from tests.support.sinks import CollectingSink, fetch, origin_client
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import (
    FetchAborted,
    OriginBadReply,
    OriginError,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
)
from webproxy.origin.request import getfile_request
from webproxy.origin.response_head import OriginResponse
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(700_001)


def fetched(route: Route, **limits: Any) -> tuple[OriginResponse, CollectingSink]:
    sink = CollectingSink()
    with OriginStub({"/x": route}) as origin:
        return fetch(getfile_request(f"{origin.url}/x"), sink, **limits), sink


def failure(route: Route, sink: CollectingSink | None = None, **limits: Any) -> OriginError:
    with OriginStub({"/x": route}) as origin, pytest.raises(OriginError) as caught:
        fetch(getfile_request(f"{origin.url}/x"), sink or CollectingSink(), **limits)
    return caught.value


@pytest.mark.parametrize(
    ("framing", "length"), [(Framing.LENGTH, len(BODY)), (Framing.CHUNKED, None), (Framing.CLOSE, None)]
)
def test_a_whole_body_in_every_framing(framing: Framing, length: int | None) -> None:
    response, sink = fetched(Route(body=BODY, framing=framing, headers={"ETag": '"v1"', "X-A": " spaced "}))
    assert (response.status, response.length) == (200, length)
    assert (response.fields.get(b"etag"), response.fields.get(b"x-a")) == (b'"v1"', b"spaced")
    assert sink.body == BODY
    assert sink.responses == [response]


@pytest.mark.parametrize("framing", list(Framing))
def test_an_empty_body_begins_too(framing: Framing) -> None:
    response, sink = fetched(Route(body=b"", framing=framing))
    assert (response.status, response.length) == (200, 0 if framing is Framing.LENGTH else None)
    assert (sink.responses, sink.body) == ([response], b"")


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 416, 418, 500, 503, 599])
def test_any_other_status_is_an_answer_too(status: int) -> None:
    sink = CollectingSink(wanted=False)
    with OriginStub({"/x": Route(status=status, body=b"no")}) as origin:
        assert fetch(getfile_request(f"{origin.url}/x"), sink).status == status
    assert sink.body == b""


def test_one_get_is_all_that_is_asked() -> None:
    with OriginStub({"/x?y=z": Route(body=b"abc")}) as origin:
        fetch(getfile_request(f"{origin.url}/x?y=z"), CollectingSink())
        (request,) = origin.requests
    assert (request.method, request.path) == ("GET", "/x?y=z")
    assert request.headers["accept-encoding"] == "identity"
    assert not {"range", "authorization", "cookie", "expect"} & set(request.headers)


def test_an_encoded_body_is_handed_over_as_it_came() -> None:
    packed = gzip.compress(b"plain" * 1000)
    response, sink = fetched(Route(body=packed, headers={"Content-Encoding": "gzip"}))
    assert sink.body == packed
    assert response.length == len(packed)


def test_connections_are_used_again_also_after_an_unwanted_body() -> None:
    routes = {"/x": Route(body=b"abc"), "/missing": Route(status=404, body=b"n" * 1000)}
    with OriginStub(routes) as origin, origin_client() as client:
        for path in ("/x", "/missing", "/x", "/x"):
            client.fetch(getfile_request(origin.url + path), CollectingSink(wanted=path == "/x"))
        assert origin.connection_count == 1


def test_a_long_unwanted_body_is_not_read_to_its_end() -> None:
    hold = threading.Event()
    sink = CollectingSink(wanted=False)
    with OriginStub({"/x": Route(status=404, body=b"n" * 10_000_000, hold=hold)}) as origin:
        assert fetch(getfile_request(f"{origin.url}/x"), sink).status == 404
    assert sink.body == b""


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
@pytest.mark.parametrize("at", [0, 1, 300_000])
def test_a_truncated_body_may_be_tried_again(framing: Framing, at: int) -> None:
    sink = CollectingSink()
    error = failure(Route(body=BODY, framing=framing, truncate_at=at), sink)
    assert isinstance(error, OriginBadReply)
    assert error.retryable
    assert sink.body == BODY[:at]


@pytest.mark.parametrize("at", [0, 300_000])
def test_a_reset_may_be_tried_again(at: int) -> None:
    sink = CollectingSink()
    error = failure(Route(body=BODY, reset_at=at), sink)
    assert error.retryable
    assert BODY.startswith(sink.body)


def test_a_length_that_promises_more_than_comes_is_a_short_body() -> None:
    error = failure(Route(body=b"abc", declared_length=10))
    assert isinstance(error, OriginBadReply)
    assert error.retryable


def test_bytes_beyond_the_length_belong_to_nobody() -> None:
    response, sink = fetched(Route(body=b"abcdef", declared_length=4))
    assert (response.length, sink.body) == (4, b"abcd")


def test_a_silent_origin_times_out_in_the_header() -> None:
    hold = threading.Event()
    error = failure(Route(body=b"x", hold=hold, hold_head=True), stall_s=0.3)
    assert isinstance(error, OriginTimeout)
    assert not error.retryable


def test_a_silent_origin_times_out_in_mid_body() -> None:
    sink = CollectingSink()
    error = failure(Route(body=BODY, hold=threading.Event(), hold_at=1000), sink, stall_s=2.0)
    assert isinstance(error, OriginTimeout)
    assert sink.body == BODY[:1000]


def test_an_origin_that_is_silent_behind_what_was_wanted_has_answered() -> None:
    sink = CollectingSink(wanted=False)
    with OriginStub({"/x": Route(status=404, body=BODY, hold=threading.Event(), hold_at=1000)}) as origin:
        assert fetch(getfile_request(f"{origin.url}/x"), sink, stall_s=0.3).status == 404


@pytest.mark.parametrize("framing", list(Framing))
def test_a_body_over_the_maximum_is_refused_whether_declared_or_not(framing: Framing) -> None:
    sink = CollectingSink()
    error = failure(Route(body=BODY, framing=framing), sink, object_bytes_max=len(BODY) - 1)
    assert isinstance(error, OriginTooLarge)
    assert not error.retryable
    assert len(sink.body) < len(BODY)
    assert not sink.body or framing is not Framing.LENGTH


@pytest.mark.parametrize("framing", list(Framing))
def test_a_body_of_the_maximum_is_taken(framing: Framing) -> None:
    _, sink = fetched(Route(body=BODY, framing=framing), object_bytes_max=len(BODY))
    assert sink.body == BODY


def test_a_fetch_that_nobody_wants_ends_while_the_origin_is_silent() -> None:
    route = Route(body=BODY, hold=threading.Event(), hold_at=1000)
    sink = CollectingSink()
    with OriginStub({"/x": route}) as origin, origin_client() as client:
        client.begin(getfile_request(f"{origin.url}/x"), sink)
        assert route.reached.wait(WATCHDOG_S)
        sink.leave()
        with pytest.raises(FetchAborted):
            sink.wait()


def test_what_the_sink_raises_comes_out_and_the_client_goes_on() -> None:
    broken = OSError(errno.ENOSPC, "No space left on device")
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        with pytest.raises(OSError, match="No space left") as caught:
            client.fetch(getfile_request(f"{origin.url}/x"), CollectingSink(break_with=broken))
        assert caught.value is broken
        sink = CollectingSink()
        client.fetch(getfile_request(f"{origin.url}/x"), sink)
    assert sink.body == BODY


def test_a_failure_holds_nothing_alive_once_it_was_handled() -> None:
    sink = CollectingSink(break_with=OSError("full"))
    gone = weakref.ref(sink)
    gc.collect()
    gc.disable()  # the rest must not need it
    try:
        with OriginStub({"/x": Route(body=b"abc")}) as origin:
            try:
                fetch(getfile_request(f"{origin.url}/x"), sink)
            except OSError:
                pass
        sink.break_with = None
        del sink
        assert gone() is None
    finally:
        gc.enable()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OriginUnreachable) as caught:
        fetch(getfile_request(f"http://127.0.0.1:{port}/x"), CollectingSink())
    assert caught.value.retryable


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(OriginUnreachable) as caught:
        fetch(getfile_request("http://no-such-host.invalid/x"), CollectingSink())
    assert caught.value.retryable


def test_without_a_descriptor_for_a_socket_it_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with OriginStub({"/x": Route(body=b"abc")}) as origin:
        monkeypatch.setattr("webproxy.origin.hop.socket.socket", refusing(errno.EMFILE))
        with pytest.raises(OriginUnreachable, match="Too many open files"):
            fetch(getfile_request(f"{origin.url}/x"), CollectingSink())
        monkeypatch.undo()


def test_threads_fetch_side_by_side() -> None:
    routes = {f"/{n}": Route(body=os.urandom(50_000 + n)) for n in range(16)}
    with OriginStub(routes) as origin, origin_client() as client, ThreadPoolExecutor(8) as crew:
        sinks = {path: CollectingSink() for path in routes}
        list(crew.map(lambda path: client.fetch(getfile_request(origin.url + path), sinks[path]), routes))
    assert {path: sink.body for path, sink in sinks.items()} == {path: route.body for path, route in routes.items()}


def test_failures_leave_no_descriptor() -> None:
    with OriginStub({"/x": Route(body=BODY, truncate_at=10)}) as origin, origin_client() as client:
        before = own_sockets()
        for _ in range(20):
            with pytest.raises(OriginBadReply):
                client.fetch(getfile_request(f"{origin.url}/x"), CollectingSink())
        wait_until(lambda: own_sockets() <= before + 1, what="the end of the stub's connections")


def own_sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:  # the directory's own
            continue
    return count
