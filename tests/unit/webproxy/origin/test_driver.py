"""OriginDriver: transfers that pause, are given up or never begin, and an end that each sink hears of once."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from tests.support.descriptors import open_descriptors
from tests.support.rawserver import RESET, RawServer, Step
from tests.support.sinks import CollectingSink, WaitingClient, fetch, origin_client, origin_limits, running_driver
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import FetchAborted, OriginError, OriginUnreachable
from webproxy.http.fields import Fields
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginLimits, OriginRequest, getfile_request
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.shares import ShareSettings
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(700_001)
OK = b"HTTP/1.1 200 OK\r\n"
GIVEN_UP = FetchAborted("no reader left")


class PausingSink(CollectingSink):
    """Has no room for a part that it sees for the first time."""

    def __init__(self, on_pause: Callable[[PausingSink], object], *, pauses_max: int = 1000) -> None:
        super().__init__()
        self.pauses = 0
        self.ticks = 0
        self.endings = 0
        self.is_paused = threading.Event()
        self._on_pause = on_pause
        self._pauses_max = pauses_max
        self._has_room = False

    def write(self, data: bytes) -> bool:
        if not self._has_room and self.pauses < self._pauses_max:
            self._has_room = True
            self.pauses += 1
            self._on_pause(self)
            self.is_paused.set()
            return False
        self._has_room = False
        return super().write(data)

    def tick(self) -> None:
        self.ticks += 1

    def ended(self, outcome: OriginResponse | Exception) -> None:
        self.endings += 1
        super().ended(outcome)


def nothing(_sink: PausingSink) -> None:
    """It stays paused."""


def resume(sink: PausingSink) -> None:
    assert sink.transfer is not None
    sink.transfer.resume()


# -- pause and resume ------------------------------------------------------------------------------------------------
def resume_often(sink: PausingSink) -> None:
    for _ in range(5):
        resume(sink)


def resume_later(sink: PausingSink) -> None:
    threading.Timer(0.001, resume, [sink]).start()


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("on_pause", [resume, resume_often, resume_later])
def test_each_byte_comes_once_however_often_it_pauses(
    on_pause: Callable[[PausingSink], object], framing: Framing
) -> None:
    sink = PausingSink(on_pause)
    with OriginStub({"/x": Route(body=BODY, framing=framing)}) as origin:
        assert fetch(getfile_request(f"{origin.url}/x"), sink).status == 200
    assert sink.pauses > 1
    assert sink.body == BODY
    assert sink.endings == 1


def test_resuming_what_is_not_paused_does_nothing() -> None:
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=1000)
    sink = CollectingSink()
    with OriginStub({"/x": route}) as origin, origin_client() as client:
        transfer = client.driver.transfer(getfile_request(f"{origin.url}/x"), sink, origin_limits())
        transfer.resume()
        transfer.begin()
        assert route.reached.wait(WATCHDOG_S)
        transfer.resume()
        gate.set()
        sink.wait()
        transfer.resume()
    assert sink.body == BODY


def test_a_paused_origin_is_not_silent() -> None:
    sink = PausingSink(nothing, pauses_max=1)
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client(stall_s=0.3) as client:
        client.begin(getfile_request(f"{origin.url}/x"), sink)
        assert sink.is_paused.wait(WATCHDOG_S)
        seen = sink.ticks
        wait_until(lambda: sink.ticks > seen + 4)  # a second
        assert not sink.endings
        resume(sink)
        sink.wait()
    assert sink.body == BODY


def test_a_paused_transfer_delays_no_other() -> None:
    sink = PausingSink(nothing)
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        client.begin(getfile_request(f"{origin.url}/x"), sink)
        assert sink.is_paused.wait(WATCHDOG_S)
        other = CollectingSink()
        client.fetch(getfile_request(f"{origin.url}/x"), other)
        assert other.body == BODY
        assert not sink.endings


def test_an_origin_that_breaks_off_while_it_is_paused_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is closed at both ends is always ready: nobody may ask for it while nobody reads it."""
    looks = 0

    def looking_at_the_clock() -> float:
        nonlocal looks
        looks += 1
        return monotonic()

    monkeypatch.setattr("webproxy.origin.driver.monotonic", looking_at_the_clock)
    gate = threading.Event()
    sink = PausingSink(nothing, pauses_max=1)
    reply = OK + b"Content-Length: 10\r\n\r\nabc"
    with RawServer([reply, gate, RESET]) as server, origin_client() as client:
        client.begin(getfile_request(f"http://127.0.0.1:{server.port}/x"), sink)
        assert sink.is_paused.wait(WATCHDOG_S)
        gate.set()
        seen, before = sink.ticks, looks
        wait_until(lambda: sink.ticks > seen + 3)
        assert looks - before < 300, "a few for each turn of the thread"
        resume(sink)
        with pytest.raises(OriginError):
            sink.wait()
    assert sink.endings == 1


# -- bodies of requests ----------------------------------------------------------------------------------------------
class Trickling:
    """A body of which there is nothing at first, and again behind each piece."""

    def __init__(self, data: bytes, length: int | None, piece: int = 100_000) -> None:
        self.length = length
        self.waits = threading.Event()
        self._data = data
        self._piece = piece
        self._here = 0

    def come(self) -> bool:
        """The next piece has come; False if that was the end."""
        self.waits.clear()
        self._here = self._piece
        return bool(self._data)

    def read(self, size: int) -> bytes | None:
        """As BodySource.read()."""
        if self._data and not self._here:
            self.waits.set()
            return None
        size = min(size, self._here)
        data, self._data = self._data[:size], self._data[size:]
        self._here -= len(data)
        return data


@pytest.mark.parametrize("length", [len(BODY), None], ids=["length", "chunked"])
@pytest.mark.parametrize("resumes", [1, 3])
def test_a_body_that_comes_in_pieces_goes_out_whole(length: int | None, resumes: int) -> None:
    body, sink = Trickling(BODY, length), CollectingSink()
    with OriginStub({"/x": Route(methods={"PUT"})}) as origin, origin_client() as client:
        request = OriginRequest(url=f"{origin.url}/x", method=b"PUT", body=body)
        transfer = client.begin(request, sink)
        while True:
            wait_until(lambda: body.waits.is_set() or sink.has_ended.is_set())
            if sink.has_ended.is_set():
                break
            body.come()
            for _ in range(resumes):
                transfer.resume()
        assert sink.wait().status == 200
        assert origin.requests[0].body == BODY


def test_a_body_that_does_not_come_is_no_silence_of_the_origin() -> None:
    body, sink = Trickling(b"abc", 3), PausingSink(nothing, pauses_max=0)
    with (
        OriginStub({"/x": Route(methods={"PUT"})}) as origin,
        origin_client(stall_s=0.3) as client,
    ):
        transfer = client.begin(OriginRequest(url=f"{origin.url}/x", method=b"PUT", body=body), sink)
        assert body.waits.wait(WATCHDOG_S)
        seen = sink.ticks
        wait_until(lambda: sink.ticks > seen + 4)
        body.come()
        transfer.resume()
        assert sink.wait().status == 200


def test_an_answer_comes_while_the_body_does_not() -> None:
    body, sink = Trickling(b"abc", 3), CollectingSink()
    with RawServer([OK + b"Content-Length: 1\r\nConnection: close\r\n\r\nx"]) as server, origin_client() as client:
        client.begin(OriginRequest(url=f"http://127.0.0.1:{server.port}/x", method=b"PUT", body=body), sink)
        with contextlib.suppress(OriginError):
            sink.wait()
    assert sink.responses[0].status == 200


# -- given up --------------------------------------------------------------------------------------------------------
Moment = Callable[[WaitingClient, str, PausingSink], None]


def not_begun(client: WaitingClient, url: str, sink: PausingSink) -> None:
    sink.transfer = client.driver.transfer(getfile_request(url), sink, origin_limits())


def later(client: WaitingClient, url: str, sink: PausingSink) -> None:
    not_begun(client, url, sink)
    assert sink.transfer is not None
    sink.transfer.begin(60.0)
    wait_until(lambda: sink.ticks)


def under_way(client: WaitingClient, url: str, sink: PausingSink) -> None:
    client.begin(getfile_request(url), sink)


def paused(client: WaitingClient, url: str, sink: PausingSink) -> None:
    client.begin(getfile_request(url), sink)
    assert sink.is_paused.wait(WATCHDOG_S)


MOMENTS = [not_begun, later, under_way, paused]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("times", [1, 3])
def test_who_cancels_hears_of_it_once(moment: Moment, times: int) -> None:
    sink = PausingSink(nothing)
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        moment(client, f"{origin.url}/x", sink)
        assert sink.transfer is not None
        for _ in range(times):
            sink.transfer.cancel(GIVEN_UP)
        with pytest.raises(FetchAborted):
            sink.wait()
        sink.transfer.begin()
        sink.transfer.resume()
        assert fetch_well(client, origin)
    assert (sink.endings, sink.body) == (1, b"")


@pytest.mark.parametrize("moment", MOMENTS)
def test_who_abandons_hears_nothing(moment: Moment) -> None:
    sink = PausingSink(nothing)
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        moment(client, f"{origin.url}/x", sink)
        assert sink.transfer is not None
        sink.transfer.abandon()
        sink.transfer.cancel(GIVEN_UP)
        sink.transfer.begin()
        assert fetch_well(client, origin)
    assert (sink.endings, sink.body) == (0, b"")


def test_what_is_over_cannot_be_cancelled() -> None:
    sink = PausingSink(nothing, pauses_max=0)
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        transfer = client.begin(getfile_request(f"{origin.url}/x"), sink)
        assert sink.wait().status == 200
        transfer.cancel(GIVEN_UP)
        assert fetch_well(client, origin)
    assert sink.endings == 1


def fetch_well(client: WaitingClient, origin: OriginStub) -> bool:
    sink = CollectingSink()
    client.fetch(getfile_request(f"{origin.url}/x"), sink)
    return sink.body == BODY


def test_one_that_begins_later_is_not_sent_before() -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        late, sooner = (PausingSink(nothing, pauses_max=0) for _ in range(2))
        for sink, after_s in ((late, 60.0), (sooner, 0.3)):
            transfer = client.driver.transfer(getfile_request(f"{origin.url}/x"), sink, origin_limits())
            sink.transfer = transfer
            transfer.begin(after_s)
        assert fetch_well(client, origin)
        sooner.wait()
        assert sooner.body == BODY
        assert origin.count("/x") == 2
        assert not late.endings
        late.leave()
        with pytest.raises(FetchAborted):
            late.wait()


# -- the end of the driver -------------------------------------------------------------------------------------------
def at_the_gate(client: WaitingClient, url: str, sink: PausingSink) -> None:
    """Behind one that has the only connection."""
    first = PausingSink(nothing)
    paused(client, url, first)
    client.begin(getfile_request(url), sink)
    wait_until(lambda: sink.ticks)
    assert not sink.responses


@pytest.mark.parametrize("moment", [later, under_way, paused, at_the_gate])
def test_the_end_of_the_driver_is_the_end_of_all(moment: Moment) -> None:
    sink = PausingSink(nothing)
    with OriginStub({"/x": Route(body=BODY)}) as origin, running_driver(ShareSettings(connections_max=1)) as driver:
        moment(WaitingClient(driver, origin_limits()), f"{origin.url}/x", sink)
        driver.close()
        with pytest.raises(OriginUnreachable, match="stops"):
            sink.wait()
        assert sink.endings == 1
        after = PausingSink(nothing)
        under_way(WaitingClient(driver, origin_limits()), f"{origin.url}/x", after)
    assert not after.endings


def test_a_driver_that_never_ran_ends_what_was_to_begin() -> None:
    driver, sink = OriginDriver(), CollectingSink()
    WaitingClient(driver, origin_limits()).begin(getfile_request("http://127.0.0.1:1/x"), sink)
    driver.close()
    with pytest.raises(OriginUnreachable, match="stops"):
        sink.wait()


def test_nothing_is_left_open() -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin:
        before = open_descriptors()
        for moment in MOMENTS:
            with origin_client() as client:
                assert fetch_well(client, origin)
                moment(client, f"{origin.url}/x", PausingSink(nothing))
        wait_until(lambda: open_descriptors() <= before, what="the end of the stub's connections")


# -- faults ----------------------------------------------------------------------------------------------------------
class Broken(CollectingSink):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def _break(self, where: str) -> None:
        if where == self._where:
            raise ZeroDivisionError(where)

    def interim(self, status: int, fields: Fields) -> None:
        self._break("interim")

    def begin(self, response: OriginResponse) -> bool:
        self._break("begin")
        return True

    def tick(self) -> None:
        self._break("tick")

    def ended(self, outcome: OriginResponse | Exception) -> None:
        super().ended(outcome)
        self._break("ended")


@pytest.mark.parametrize("where", ["interim", "begin", "tick"])
def test_what_a_sink_raises_ends_its_transfer_alone(where: str) -> None:
    route = Route(body=BODY, interim=[(103, {})], hold=threading.Event(), hold_at=1000)
    with OriginStub({"/x": route, "/y": Route(body=BODY)}) as origin, origin_client() as client:
        sink, other = Broken(where), CollectingSink()
        client.begin(getfile_request(f"{origin.url}/x"), sink)
        client.begin(getfile_request(f"{origin.url}/x"), other)
        with pytest.raises(ZeroDivisionError, match=where):
            sink.wait()
        client.fetch(getfile_request(f"{origin.url}/y"), CollectingSink())
        assert not other.has_ended.is_set()


def test_a_sink_that_breaks_at_its_end_harms_nobody() -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        client.fetch(getfile_request(f"{origin.url}/x"), Broken("ended"))
        assert fetch_well(client, origin)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/\0", "http://127.0.0.1:1/\u20ac", "nothing", ""])
def test_a_url_that_cannot_be_asked_for_is_a_failure(url: str) -> None:
    with origin_client() as client:
        with pytest.raises((OriginError, ValueError)):
            client.fetch(OriginRequest(url=url), CollectingSink())
        with OriginStub({"/x": Route(body=BODY)}) as origin:
            assert fetch_well(client, origin)


@pytest.mark.parametrize("end", ["complete", "cancelled", "abandoned"])
def test_what_is_over_holds_nothing_alive(end: str) -> None:
    sink = PausingSink(nothing, pauses_max=0 if end == "complete" else 1)
    gone = weakref.ref(sink)
    gc.collect()
    gc.disable()  # the rest must not need it
    try:
        with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
            transfer = client.begin(getfile_request(f"{origin.url}/x"), sink)
            if end == "complete":
                sink.wait()
            elif end == "cancelled":
                transfer.cancel(GIVEN_UP)
                assert sink.has_ended.wait(WATCHDOG_S)
            else:
                assert sink.is_paused.wait(WATCHDOG_S)
                transfer.abandon()
            assert fetch_well(client, origin)
            sink.outcome = None
            del sink
            wait_until(lambda: gone() is None)
    finally:
        gc.enable()


def test_a_request_that_was_refused_holds_nothing_alive() -> None:
    """A field that pycurl does not take, after it was given the callbacks: the handle is kept, without them."""
    sink = CollectingSink()
    gone = weakref.ref(sink)
    gc.collect()
    gc.disable()  # the rest must not need it
    try:
        with origin_client(ca_file="no\0file") as client:
            transfer = client.begin(OriginRequest(url="http://127.0.0.1:1/x"), sink)
            assert sink.has_ended.wait(WATCHDOG_S)
            assert isinstance(sink.outcome, ValueError)
            sink.outcome = sink.transfer = None
            del sink
            wait_until(lambda: gone() is None)
            transfer.resume()
    finally:
        gc.enable()


# -- connections that died while they were kept ----------------------------------------------------------------------
class Dying(RawServer):
    """Each connection answers one request; those before the last script read another one, and close."""

    def _serve(self, connection: Any, script: list[Step]) -> None:
        with connection, contextlib.suppress(OSError):
            self._read_request(connection)
            for step in script:
                self._perform(connection, step)
            if script is not self._scripts[-1]:
                self._read_request(connection)


@pytest.mark.parametrize("recovers", [True, False])
def test_more_dead_connections_than_libcurl_tries_cost_one_fresh_request(*, recovers: bool) -> None:
    gate, kept = threading.Event(), 8
    answer = OK + b"Content-Length: 1\r\n\r\n1"
    last: list[Step] = [OK + b"Content-Length: 1\r\n\r\n2"] if recovers else [RESET]
    scripts: list[list[Step]] = [[gate, answer]] * kept
    with Dying(*scripts, last) as server, origin_client() as client:
        url = f"http://127.0.0.1:{server.port}"
        sinks = [CollectingSink() for _ in range(kept)]
        for sink in sinks:
            client.begin(getfile_request(f"{url}/first"), sink)
        wait_until(lambda: len(server.requests) == kept)
        gate.set()
        for sink in sinks:
            sink.wait()
        sink = CollectingSink()
        if recovers:
            client.fetch(getfile_request(f"{url}/again"), sink)
            assert sink.body == b"2"
        else:
            with pytest.raises(OriginUnreachable):
                client.fetch(getfile_request(f"{url}/again"), sink)
        again = [request for request in server.requests if request.startswith(b"GET /again")]
        assert len(again) == 7, "six that libcurl makes by itself, and a fresh one"


# -- many ------------------------------------------------------------------------------------------------------------
def test_many_silent_answers_are_waited_for_side_by_side() -> None:
    gate, count = threading.Event(), 60
    routes = {"/x": Route(body=b"abc", hold=gate, hold_head=True), "/y": Route(body=BODY)}
    with OriginStub(routes) as origin, origin_client() as client:
        sinks = [CollectingSink() for _ in range(count)]
        for sink in sinks:
            client.begin(getfile_request(f"{origin.url}/x"), sink)
        assert origin.wait_for("/x", count)
        client.fetch(getfile_request(f"{origin.url}/y"), CollectingSink())
        gate.set()
        for sink in sinks:
            assert sink.wait().status == 200


# -- what wakes others -----------------------------------------------------------------------------------------------
def test_what_is_put_off_sees_all_of_a_short_response() -> None:
    """Whoever waits for its head is woken once, for all of it."""
    seen: list[tuple[bytes, bool]] = []

    class TellingSink(CollectingSink):
        def begin(self, response: OriginResponse) -> bool:
            client.driver.afterwards(lambda: seen.append((self.body, self.has_ended.is_set())))
            assert not seen
            return super().begin(response)

    whole = OK + b"Content-Length: 1000\r\n\r\n" + BODY[:1000]  # which arrives as it is sent: in one piece
    with RawServer([whole]) as server, origin_client() as client:
        client.fetch(getfile_request(f"http://127.0.0.1:{server.port}/x"), TellingSink())
        wait_until(lambda: seen)
    assert seen == [(BODY[:1000], True)]


def test_another_thread_puts_nothing_off() -> None:
    called: list[int] = []
    with running_driver() as driver:
        driver.afterwards(lambda: called.append(threading.get_ident()))
        assert called == [threading.get_ident()]


# -- handles ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("between", ["head", "refused", "other options"])
def test_a_handle_that_was_told_of_another_request_asks_as_before(between: str) -> None:
    """One after the other they have the same handle, which is told only what differs between ordinary ones."""

    def ask(request: OriginRequest, limits: OriginLimits | None = None) -> bytes:
        sink = CollectingSink()
        client.fetch(request, sink, limits)
        return sink.body

    with OriginStub({"/x": Route(body=BODY)}) as origin, origin_client() as client:
        plain = OriginRequest(url=f"{origin.url}/x", fields=Fields([(b"X-Own", b"2")]))
        assert ask(plain, origin_limits(add_fields=((b"X-Added", b"1"),))) == BODY
        if between == "head":
            assert ask(replace(plain, method=b"HEAD")) == b""
        elif between == "refused":
            with pytest.raises(OriginError):
                ask(replace(plain, fields=Fields([(b"X", b"a\r\nb")])))
        else:
            ask(replace(plain, method=b"POST"))
            assert ask(plain, origin_limits(connect_s=7.0)) == BODY
        assert ask(plain) == BODY
        first, *_, last = origin.requests
    assert first.method == last.method == "GET"
    assert [request.headers.get("x-own") for request in (first, last)] == ["2", "2"]
    assert [request.headers.get("x-added") for request in (first, last)] == ["1", None]
