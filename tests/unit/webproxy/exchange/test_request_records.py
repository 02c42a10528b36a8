"""Each request that ends has one record, whatever its end, which says what the client was sent and why."""

from __future__ import annotations

import json
import logging

import pytest

from shmchannel.daemonkit.logs import LogForm, configure
from tests.support.handlers import getfile_handler
from tests.support.observers import Recording
from tests.support.small_proxy import SmallProxy, small_proxy
from tests.support.tcp import at_end, connected
from tests.support.waiting import wait_until
from webproxy.exchange.getfile_request import GetfileRequest
from webproxy.telemetry.request_ids import RequestIds
from webproxy.telemetry.requests import GETFILE, CacheResult, RequestRecord
from webproxy.transport import sockets
from webproxy.transport.job import Done

GET = b"GET /x?y=1 HTTP/1.1\r\nHost: us\r\nUser-Agent: test\r\n\r\n"
FRESH = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello"


def told(proxy: SmallProxy, seen: Recording, count: int = 1) -> list[RequestRecord]:
    wait_until(lambda: len(seen.records) >= count, what=f"{count} records")
    proxy.counted(count)
    return seen.records


def test_a_fetched_response_and_who_shared_it() -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        first = proxy.client(GET)
        origin = proxy.asked()
        second = proxy.client(GET)
        proxy.waits(2)
        origin.send(FRESH)
        for client in (first, second):
            head = client.until()
            assert client.exactly(5) == b"hello"
        records = told(proxy, seen, 2)
        proxy.counted(2)
    assert {record.cache for record in records} == {CacheResult.MISS, CacheResult.COLLAPSED}
    collapsed = next(record for record in records if record.cache is CacheResult.COLLAPSED)
    assert (collapsed.method, collapsed.target, collapsed.protocol) == (b"GET", b"/x?y=1", b"HTTP/1.1")
    assert (collapsed.status, collapsed.outcome, collapsed.body_bytes) == (200, "fetched", 5)
    assert collapsed.head_bytes == len(head)
    assert collapsed.upstream_ns > 0
    assert collapsed.until_first_byte_ns >= collapsed.upstream_ns
    assert collapsed.origin.startswith("http://127.0.0.1:")
    assert collapsed.fields is not None
    assert collapsed.fields.get(b"user-agent") == b"test"


def test_requests_of_one_connection_have_bytes_of_their_own() -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        client = proxy.client(b"OPTIONS * HTTP/1.1\r\nHost: us\r\n\r\n")
        client.until()
        client.send(b"TRACE / HTTP/1.1\r\nHost: us\r\n\r\n")
        client.rest()
        options, trace = told(proxy, seen, 2)
    assert (options.status, options.outcome, options.cache, options.body_bytes) == (
        200,
        "answered",
        CacheResult.NONE,
        0,
    )
    assert (trace.status, trace.outcome, trace.body_bytes) == (501, "error", len(b"TRACE is not supported\n"))


def test_what_is_passed() -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        client = proxy.client(b"POST /x HTTP/1.0\r\nHost: us\r\nContent-Length: 0\r\n\r\n")
        proxy.asked().send(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nyes")
        client.rest()
        (record,) = told(proxy, seen)
    assert (record.method, record.protocol, record.status) == (b"POST", b"HTTP/1.0", 201)
    assert (record.outcome, record.cache, record.body_bytes) == ("passed", CacheResult.PASS, 3)
    assert record.upstream_ns > 0


@pytest.mark.parametrize("has_head", [False, True])
def test_a_client_that_leaves(has_head: bool) -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        client = proxy.client(GET)
        origin = proxy.asked()
        if has_head:
            origin.send(FRESH[:-3])
            client.until(b"he")
        proxy.waits()
        client.leave()
        (record,) = told(proxy, seen)
    assert (record.outcome, record.status, record.body_bytes) == ("client gone", *((200, 2) if has_head else (0, 0)))


def test_a_body_that_is_cut_short() -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        client = proxy.client(GET)
        origin = proxy.asked()
        origin.send(FRESH[:-3])
        client.until(b"he")
        origin.leave()
        client.rest()
        (record,) = told(proxy, seen)
    assert (record.outcome, record.status, record.body_bytes) == ("cut short", 200, 2)


def test_a_request_that_nobody_continues() -> None:
    """Its client is too slow, or the process ends."""
    seen = Recording()
    with small_proxy(observers=(seen,), workers=0) as proxy:
        client = proxy.client(GET)
        job = proxy.next_job()
        job.run()
        job.close()
        client.rest()
        assert proxy.handler.outcomes.totals() == {"given up": 1}
    assert (seen.only.outcome, seen.only.status, seen.only.sent_bytes) == ("given up", 0, 0)


def test_what_is_no_request() -> None:
    seen = Recording()
    with small_proxy(observers=(seen,)) as proxy:
        assert proxy.client(b"GET /x\x7f HTTP/1.1\r\n\r\n").rest().startswith(b"HTTP/1.1 400 ")
        wait_until(lambda: len(seen.records) == 1, what="the record")
    assert (seen.only.method, seen.only.status, seen.only.outcome) == (b"", 400, "refused")
    assert seen.only.body_bytes > 0


def test_a_getfile_request() -> None:
    seen = Recording()
    made = getfile_handler(observers=(seen,))
    with connected(closing=True) as (fd, client):
        asked = GetfileRequest(made, fd, b"/x")
        assert asked.run() == Done(asked)
        sockets.end_sending(fd)
        reply = at_end(client)
    assert (seen.only.method, seen.only.target, seen.only.protocol) == (b"GET", b"/x", GETFILE)
    assert (seen.only.status, seen.only.outcome, seen.only.sent_bytes) == (404, "not found", len(reply))


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("length", [b"Content-Length: 5\r\n\r\n", b"\r\n"], ids=["length", "to-the-end"])
def test_the_id_is_told_to_the_origin_and_the_client(version: bytes, length: bytes) -> None:
    seen = Recording()
    with small_proxy(observers=(seen,), ids=RequestIds(in_heads=True)) as proxy:
        client = proxy.client(b"GET /x HTTP/%s\r\nHost: us\r\nX-Request-Id: theirs\r\n\r\n" % version)
        origin = proxy.asked()
        asked = origin.until()
        origin.send(b"HTTP/1.1 200 OK\r\n" + length + b"hello")
        origin.leave()
        head = client.until()
        (record,) = told(proxy, seen)
        client.leave()
    line = b"\r\nX-Request-Id: %s\r\n" % record.request_id
    assert (asked.count(line), head.count(line)) == (1, 1)
    assert b"theirs" not in asked


def test_events_say_which_request_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    """At level debug each step of a request has its line; all of them, and failures, have its id."""
    seen = Recording()
    handler = configure("debug", prog="us", form=LogForm.JSON)
    try:
        with small_proxy(observers=(seen,)) as proxy:
            client = proxy.client(GET)
            origin = proxy.asked()
            origin.send(FRESH[:-3])
            client.until(b"he")
            origin.leave()
            client.rest()
            (record,) = told(proxy, seen)
            events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(logging.WARNING)
    about = [event["event"] for event in events if event.get("request") == record.request_id.decode()]
    by_worker = ["request begins", "looked up", "fetch begins", "body cut short", "request ends"]
    by_origin = ["origin asked", "origin answered", "origin given up", "fetch failed"]
    assert [event for event in about if event not in by_origin] == by_worker
    assert [event for event in about if event in by_origin] == by_origin
