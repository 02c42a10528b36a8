"""The wire corpus against a running proxy, in both forms of reply: valid requests are served, others are INVALID.

A proxy that speaks HTTP too gives the same answers, except to a line of HTTP, and later: it waits for the end of
anything that may become such a line.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.client import connect, raw, receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from tests.wire.corpus import INCOMPLETE_REQUESTS, INVALID_REQUESTS, VALID_REQUESTS, RequestCase
from webproxy.getfile import SCHEME, Status, Violation, Wire, ok_header, refusal

LONG_S = "3600"  # a time limit that does not come into play
SHORT_S = "0.2"


@dataclass(frozen=True)
class LiveProxy:
    """A proxy whose cache holds each valid path of the corpus."""

    daemon: DaemonProcess
    port: int
    wire: Wire
    speaks_http: bool

    def answer(self, case: RequestCase) -> bytes:
        """The whole reply to a valid request."""
        body = body_of(case)
        return ok_header(len(body), self.wire) + body

    @property
    def invalid(self) -> bytes:
        """The whole reply to anything else."""
        return refusal(Status.INVALID, self.wire)


def body_of(case: RequestCase) -> bytes:
    return f"the file of {case.name}".encode()


@pytest.fixture(scope="module")
def yard_with_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonYard]:
    directory = tmp_path_factory.mktemp("wire")
    lines = []
    for case in VALID_REQUESTS:
        (directory / case.name).write_bytes(body_of(case))
        lines.append((case.path or b"") + b" " + case.name.encode() + b"\n")
    (directory / "map").write_bytes(b"".join(lines))
    with DaemonYard(directory) as yard:
        yard.start_cache(content=directory / "map")
        yield yard


MODES = [(wire, protocols) for wire in Wire for protocols in ("getfile", "getfile,http")]


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def proxy(request: pytest.FixtureRequest, yard_with_cache: DaemonYard) -> Iterator[LiveProxy]:
    """A proxy for each form, patient with those who ask; afterwards it is whole and nothing was logged against it."""
    env = {"WEBPROXY_REQUEST_TIMEOUT_S": LONG_S}
    wire, protocols = request.param
    daemon = yard_with_cache.start_proxy("-t", "3", "--wire", wire, "--protocols", protocols, env=env)
    live = LiveProxy(daemon, daemon.port, wire, "http" in protocols)
    assert raw(live.port, VALID_REQUESTS[0].data) == live.answer(VALID_REQUESTS[0])  # opens lasting descriptors
    threads = daemon.thread_count()
    yield live
    assert daemon.thread_count() == threads
    assert daemon.stop() == 0
    assert [event for event in daemon.events() if event["level"] not in ("info", "debug")] == []


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def impatient(request: pytest.FixtureRequest, yard_with_cache: DaemonYard) -> LiveProxy:
    """A proxy for each form that soon loses patience with a request that does not come."""
    env = {"WEBPROXY_REQUEST_TIMEOUT_S": SHORT_S, "WEBPROXY_KEEPALIVE_S": SHORT_S}
    wire, protocols = request.param
    daemon = yard_with_cache.start_proxy("-t", "3", "--wire", wire, "--protocols", protocols, env=env)
    return LiveProxy(daemon, daemon.port, wire, "http" in protocols)


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


@pytest.mark.parametrize("case", VALID_REQUESTS, ids=lambda case: case.name)
class TestValid:
    def test_in_one_piece(self, proxy, case):
        assert raw(proxy.port, case.data) == proxy.answer(case)

    def test_a_byte_at_a_time(self, proxy, case):
        assert raw(proxy.port, *bytewise(case.data)) == proxy.answer(case)

    def test_in_four_pieces(self, proxy, case):
        pieces = [b"GETFILE ", b"GET ", case.path, b"\r\n\r\n"]
        assert raw(proxy.port, *pieces) == proxy.answer(case)

    def test_with_our_side_closed_behind_it(self, proxy, case):
        assert raw(proxy.port, case.data, end=True) == proxy.answer(case)


@pytest.mark.parametrize("case", INVALID_REQUESTS, ids=lambda case: case.name)
class TestInvalid:
    def test_in_one_piece(self, proxy, case):
        if proxy.speaks_http and case.name == "http-request":
            pytest.skip("a request like any other, without its Host: tests/wire/test_live_http.py")
        assert raw(proxy.port, case.data) == proxy.invalid

    def test_a_byte_at_a_time_it_is_refused_where_the_rule_breaks(self, proxy, case):
        if case.violation is Violation.EXCESS_BYTES:
            pytest.skip("a byte at a time the request is whole, and answered, before the excess comes")
        sent = case.data[: case.decided_at]
        if proxy.speaks_http and not sent.startswith(SCHEME):
            if case.name == "http-request":
                pytest.skip("it breaks no rule of HTTP there")
            sent = case.data[: case.data.index(b"\n", 2) + 1]  # behind one line end a request may still come
        assert raw(proxy.port, *bytewise(sent)) == proxy.invalid


@pytest.mark.parametrize("case", INCOMPLETE_REQUESTS, ids=lambda case: case.name)
class TestIncomplete:
    def test_at_the_end_of_the_stream(self, proxy, case):
        """The time limit is an hour away: the end of the stream alone decides."""
        assert raw(proxy.port, case.data, end=True) == proxy.invalid

    def test_at_the_time_limit(self, impatient, case):
        assert raw(impatient.port, case.data) == impatient.invalid


def test_a_connection_that_closes_at_once_costs_nothing(proxy):
    descriptors = proxy.daemon.settled_descriptor_count()
    for _ in range(50):
        connect(proxy.port).close()
    assert raw(proxy.port, VALID_REQUESTS[0].data) == proxy.answer(VALID_REQUESTS[0])
    wait_until(lambda: proxy.daemon.descriptor_count() <= descriptors, what="closed connections")


def test_half_sent_requests_cost_no_worker(proxy):
    """Three workers, thirty who never finish: the others are served."""
    descriptors = proxy.daemon.settled_descriptor_count()
    silent = [connect(proxy.port) for _ in range(30)]
    try:
        for number, client in enumerate(silent):
            client.sendall(b"GETFILE GET /a"[: number % 14 + 1])
        for case in VALID_REQUESTS * 3:
            assert raw(proxy.port, case.data) == proxy.answer(case)
        silent[13].sendall(b"/b.bin\r\n\r\n")
        assert receive_to_end(silent[13]) == proxy.answer(VALID_REQUESTS[0]), "they can still finish"
    finally:
        for client in silent:
            client.close()
    wait_until(lambda: proxy.daemon.descriptor_count() <= descriptors, what="closed connections")


def test_every_invalid_request_is_counted(yard_with_cache):
    daemon = yard_with_cache.start_proxy("--protocols", "getfile")
    for case in INVALID_REQUESTS:
        raw(daemon.port, case.data)
    raw(daemon.port, b"GETF", end=True)
    assert raw(daemon.port, VALID_REQUESTS[0].data).endswith(body_of(VALID_REQUESTS[0]))
    assert daemon.stop() == 0
    stopped = daemon.wait_event("stopped")
    assert (stopped["invalid"], stopped["hit"]) == (len(INVALID_REQUESTS) + 1, 1)


def test_random_bytes_are_invalid_and_hurt_nobody(proxy):
    for _ in range(50):
        assert raw(proxy.port, os.urandom(1) * 3 + os.urandom(200), end=True) == proxy.invalid
    assert raw(proxy.port, VALID_REQUESTS[0].data) == proxy.answer(VALID_REQUESTS[0])
