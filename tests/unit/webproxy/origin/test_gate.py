"""The gate as the driver asks it: who gets a connection, waits or is refused, and when an origin is failing."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.rawserver import RESET, RawServer, Step
from tests.support.sinks import CollectingSink, WaitingClient, limits, running_driver
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import OriginBusy, OriginError, OriginFailing, OriginSilent, OriginTimeout, OriginUnreachable
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginRequest, getfile_request
from webproxy.origin.shares import ShareSettings
from workloads.origin_stub import OriginStub, Route

ONE_EACH = ShareSettings(origin_connections_max=1)
FAILS_AT_TWO = HealthSettings(failures_to_open=2, pause_s=30.0, pause_max_s=30.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hold() -> threading.Event:
    return threading.Event()


def held(hold: threading.Event) -> Route:
    """An answer that comes when the test lets it."""
    return Route(body=b"late", hold=hold, hold_head=True, methods=("GET", "POST"))


def client(stack: ExitStack, settings: ShareSettings = ONE_EACH, **limited: Any) -> WaitingClient:
    return WaitingClient(stack.enter_context(running_driver(settings)), limits(**limited))


def ask(asker: WaitingClient, url: str) -> CollectingSink:
    sink = CollectingSink()
    asker.begin(getfile_request(url), sink)
    return sink


def failure(sink: CollectingSink) -> OriginError:
    with pytest.raises(OriginError) as caught:
        sink.wait()
    return caught.value


def taken_port(stack: ExitStack) -> int:
    """A port on which nobody listens, and nobody else can."""
    taken = stack.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    return int(taken.getsockname()[1])


# -- shares ------------------------------------------------------------------------------------------------------
def test_a_transfer_waits_until_a_connection_of_its_origin_is_free(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold), "/b": Route(body=b"next")}))
    other = stack.enter_context(OriginStub({"/c": Route(body=b"other")}))
    asker = client(stack)
    first = ask(asker, f"{origin.url}/a")
    assert origin.wait_for("/a", 1)
    second = ask(asker, f"{origin.url}/b")
    assert ask(asker, f"{other.url}/c").wait().status == 200  # asked after it, and nobody keeps that one waiting
    assert origin.count("/b") == 0
    hold.set()
    assert (first.wait().status, second.wait().status) == (200, 200)
    assert origin.connections_peak == 1


def test_the_bound_for_all_origins_holds_too(stack: ExitStack, hold: threading.Event) -> None:
    origins = [stack.enter_context(OriginStub({"/a": held(hold)})) for _ in range(3)]
    asker = client(stack, ShareSettings(connections_max=2))
    sinks = [ask(asker, f"{origin.url}/a") for origin in origins]
    assert all(origin.wait_for("/a", 1) for origin in origins[:2])
    assert origins[2].count("/a") == 0
    hold.set()
    assert [sink.wait().status for sink in sinks] == [200, 200, 200]


def test_a_full_line_refuses_at_once(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold)}))
    asker = client(stack, ShareSettings(origin_connections_max=1, line_max=1))
    sinks = [ask(asker, f"{origin.url}/a") for _ in range(3)]
    assert isinstance(failure(sinks[2]), OriginBusy)
    hold.set()
    assert [sink.wait().status for sink in sinks[:2]] == [200, 200]


def test_idle_connections_count(stack: ExitStack, hold: threading.Event) -> None:
    """Those that may be sent once do not use an idle connection: it makes way."""
    settings = ShareSettings(connections_max=3, origin_connections_max=2)
    origins = [stack.enter_context(OriginStub({"/a": held(hold)})) for _ in range(2)]
    asker = client(stack, settings)
    for origin in origins:
        sinks = [ask(asker, f"{origin.url}/a") for _ in range(2)]
        assert origin.wait_for("/a", 2)
        hold.set()
        assert [sink.wait().status for sink in sinks] == [200, 200]
        hold.clear()
    wait_until(lambda: sum(origin.connection_count for origin in origins) == 3)
    sinks = []
    for origin in origins:
        for _ in range(2):
            sinks.append(CollectingSink())
            asker.begin(OriginRequest(url=f"{origin.url}/a", method=b"POST"), sinks[-1])
    wait_until(lambda: [origin.count("/a") for origin in origins] == [4, 3])
    wait_until(lambda: [origin.connection_count for origin in origins] == [2, 1])
    hold.set()
    assert [sink.wait().status for sink in sinks] == [200] * 4


def test_the_wait_in_line_ends(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold)}))
    asker = client(stack, ShareSettings(origin_connections_max=1, line_s=0.1))
    first = ask(asker, f"{origin.url}/a")
    error = failure(ask(asker, f"{origin.url}/a"))
    assert isinstance(error, OriginBusy)
    assert not error.retryable
    hold.set()
    assert first.wait().status == 200
    assert origin.count("/a") == 1


def test_who_leaves_the_line_makes_room_in_it(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold), "/b": Route(), "/c": Route()}))
    asker = client(stack, ShareSettings(origin_connections_max=1, line_max=1))
    first, second = ask(asker, f"{origin.url}/a"), ask(asker, f"{origin.url}/b")
    second.leave()
    assert "no reader" in str(failure(second))
    third = ask(asker, f"{origin.url}/c")
    hold.set()
    assert (first.wait().status, third.wait().status) == (200, 200)
    assert origin.count("/b") == 0


def test_who_gives_up_hands_the_connection_on(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold), "/b": Route()}))
    asker = client(stack)
    first = ask(asker, f"{origin.url}/a")
    assert origin.wait_for("/a", 1)
    second = ask(asker, f"{origin.url}/b")
    first.leave()
    assert second.wait().status == 200


def test_a_redirect_to_another_origin_takes_one_of_its_connections(stack: ExitStack, hold: threading.Event) -> None:
    there = stack.enter_context(OriginStub({"/a": held(hold), "/end": Route(body=b"there")}))
    here = stack.enter_context(OriginStub({"/x": Route(redirect_to=f"{there.url}/end"), "/y": Route()}))
    asker = client(stack)
    first = ask(asker, f"{there.url}/a")
    assert there.wait_for("/a", 1)
    redirected = ask(asker, f"{here.url}/x")
    assert here.wait_for("/x", 1)
    assert ask(asker, f"{here.url}/y").wait().status == 200  # its connection is free again
    assert there.count("/end") == 0
    hold.set()
    assert (first.wait().status, redirected.wait().status) == (200, 200)
    assert redirected.body == b"there"


def test_a_redirect_within_an_origin_keeps_its_connection(stack: ExitStack) -> None:
    origin = stack.enter_context(OriginStub({"/x": Route(redirect_to="/y"), "/y": Route(body=b"moved")}))
    assert ask(client(stack, ShareSettings(origin_connections_max=1, line_max=0)), f"{origin.url}/x").wait().status


# -- health ------------------------------------------------------------------------------------------------------
def test_an_origin_that_cannot_be_reached_is_known_as_failing(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    asker, url = client(stack, health=FAILS_AT_TWO), f"http://127.0.0.1:{taken_port(stack)}/x"
    for _ in range(2):
        error = failure(ask(asker, url))
        assert isinstance(error, OriginUnreachable)
        assert error.retryable
    with caplog.at_level(logging.INFO):
        error = failure(ask(asker, url))
    assert isinstance(error, OriginFailing)
    assert not error.retryable
    assert (error.status, error.cause) == (0, "no connection")
    assert 0 < error.retry_after_s <= 30.0


@pytest.mark.parametrize(
    ("script", "cause", "status"),
    [
        ([RESET], "the connection broke before an answer", 0),
        ([], "the connection broke before an answer", 0),
        ([b"SSH-2.0-x\r\n\r\n"], "an answer that is not HTTP", 0),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"], "status 502 to 504", 503),
    ],
)
def test_failures_before_and_in_the_head_count(stack: ExitStack, script: list[Step], cause: str, status: int) -> None:
    server = stack.enter_context(RawServer(script))
    asker, url = client(stack, health=FAILS_AT_TWO), f"http://127.0.0.1:{server.port}/x"
    for _ in range(2):
        sink = ask(asker, url)
        assert sink.has_ended.wait(WATCHDOG_S)
    error = failure(ask(asker, url))
    assert isinstance(error, OriginFailing)
    assert (error.cause, error.status) == (cause, status)
    assert len(server.requests) == 2


@pytest.mark.parametrize("route", [Route(status=500), Route(status=404), Route(body=bytes(100), truncate_at=50)])
def test_other_answers_are_answers(stack: ExitStack, route: Route) -> None:
    origin = stack.enter_context(OriginStub({"/x": route}))
    asker = client(stack, health=FAILS_AT_TWO)
    for _ in range(4):
        assert ask(asker, f"{origin.url}/x").has_ended.wait(WATCHDOG_S)
    assert origin.count("/x") == 4


def test_who_gives_up_is_no_failure(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold), "/b": Route()}))
    asker = client(stack, health=HealthSettings(failures_to_open=1))
    first = ask(asker, f"{origin.url}/a")
    assert origin.wait_for("/a", 1)
    first.leave()
    failure(first)
    assert ask(asker, f"{origin.url}/b").wait().status == 200


def test_a_slow_first_byte_is_asked_for_once(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold)}))
    asker = client(stack, stall_s=0.3, health=HealthSettings(failures_to_open=1, pause_s=30.0))
    error = failure(ask(asker, f"{origin.url}/a"))
    assert isinstance(error, OriginTimeout)
    assert not error.retryable
    assert isinstance(failure(ask(asker, f"{origin.url}/a")), OriginSilent)
    assert origin.count("/a") == 1


def test_silence_is_noticed_while_it_lasts_and_an_answer_ends_it(
    stack: ExitStack, hold: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold), "/b": Route()}))
    health = HealthSettings(failures_to_open=1, silence_s=0.3, pause_s=30.0)
    asker = client(stack, ShareSettings(origin_connections_max=1), health=health)
    with caplog.at_level(logging.INFO, "webproxy.origin.gate"):
        first, waiting = ask(asker, f"{origin.url}/a"), ask(asker, f"{origin.url}/b")
        assert isinstance(failure(waiting), OriginSilent)  # it waited in line when the origin became known as failing
        assert isinstance(failure(ask(asker, f"{origin.url}/b")), OriginSilent)
        hold.set()
        assert first.wait().status == 200
        assert ask(asker, f"{origin.url}/b").wait().status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "origin fails, not asked for now",
        "origin answers again",
    ]
    assert vars(caplog.records[1])["refused"] == 2


def test_nobody_waits_in_the_line_of_a_failing_origin(stack: ExitStack, hold: threading.Event) -> None:
    origin = stack.enter_context(OriginStub({"/a": held(hold)}))
    health = HealthSettings(failures_to_open=1, silence_s=0.2, pause_s=0.05)
    asker = client(stack, health=health)
    first = ask(asker, f"{origin.url}/a")
    wait_until(lambda: isinstance(ask_and_fail(asker, f"{origin.url}/a"), OriginSilent))
    hold.set()
    assert first.wait().status == 200


def ask_and_fail(asker: WaitingClient, url: str) -> OriginError:
    return failure(ask(asker, url))


def test_one_probe_at_a_time_finds_out_whether_it_answers_again(
    stack: ExitStack, hold: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    origin = stack.enter_context(OriginStub({"/a": [Route(status=503), held(hold), Route(status=200)]}))
    health = HealthSettings(failures_to_open=1, pause_s=0.05)
    asker = client(stack, ShareSettings(), health=health)
    with caplog.at_level(logging.INFO, "webproxy.origin.gate"):
        assert ask(asker, f"{origin.url}/a").wait().status == 503
        probe = wait_until(lambda: probe_of(asker, origin))
        assert probe is not None
        assert isinstance(failure(ask(asker, f"{origin.url}/a")), OriginFailing)
        hold.set()
        assert probe.wait().status == 200
        assert ask(asker, f"{origin.url}/a").wait().status == 200
    assert [record.getMessage() for record in caplog.records] == [
        "origin fails, not asked for now",
        "origin answers again",
    ]


def probe_of(asker: WaitingClient, origin: OriginStub) -> CollectingSink | None:
    """A request that was sent; None if it was refused."""
    sink = ask(asker, f"{origin.url}/a")
    wait_until(lambda: sink.has_ended.is_set() or origin.count("/a") == 2)
    return None if sink.has_ended.is_set() else sink


def test_each_origin_has_a_health_of_its_own(stack: ExitStack) -> None:
    origin = stack.enter_context(OriginStub({"/a": Route(status=503), "/b": Route()}))
    other = stack.enter_context(OriginStub({"/b": Route()}))
    asker = client(stack, health=HealthSettings(failures_to_open=1, pause_s=30.0))
    assert ask(asker, f"{origin.url}/a").wait().status == 503
    assert isinstance(failure(ask(asker, f"{origin.url}/b")), OriginFailing)
    assert ask(asker, f"{other.url}/b").wait().status == 200
