"""HTTP connections from beginning to end, against whole daemons: order, framing, time limits, and what they cost.

Long because all of it shares the module's daemons, which a second file would start again."""

from __future__ import annotations

import itertools
import resource
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.client import Answer, ask, refuses_connections
from tests.support.contents import body_of, write_files
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.http_wire import HttpAnswer, HttpClient, request
from tests.support.waiting import wait_until
from webproxy.getfile import Status, request_bytes
from workloads.origin_stub import Framing, OriginStub, Route

SIZES = {"small": 500, "middle": 16_000, "big": 10 << 20, "huge": 48 << 20, "empty": 0} | {
    f"n{number}": 100 + number for number in range(50)
}
WORKERS = 8
SMALL_BUFFER_BYTES = 4096
CONTINUE = HttpAnswer(100, (), b"", "none")
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n"


def body(name: str) -> bytes:
    return body_of(name, SIZES[name])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonYard]:
    """A cache with the files."""
    directory = tmp_path_factory.mktemp("http")
    write_files(directory / "files", SIZES)
    with DaemonYard(directory) as yard:
        yard.start_cache("-t", "4", content=directory / "files")
        yield yard


@pytest.fixture(scope="module")
def proxy(served: DaemonYard) -> Iterator[DaemonProcess]:
    """One for the tests that leave it as it was; at its end nothing was logged against it."""
    env = {"WEBPROXY_KEEPALIVE_S": "3600", "WEBPROXY_REQUEST_TIMEOUT_S": "3600"}
    daemon = served.start_proxy("-t", str(WORKERS), "-n", "4", "-z", "65536", env=env)
    assert ask(daemon.port, "/n1").body == body("n1")  # opens lasting descriptors
    threads = daemon.thread_count()
    yield daemon
    assert daemon.thread_count() == threads
    assert daemon.stop() == 0
    assert [event for event in daemon.events() if event["level"] in ("error", "critical")] == []


@pytest.fixture
def client(proxy: DaemonProcess) -> Iterator[HttpClient]:
    with HttpClient(proxy.port) as made:
        yield made


# -- one request after the other --------------------------------------------------------------------------------------
def test_many_requests_on_one_connection(client: HttpClient) -> None:
    for number in range(300):
        name = f"n{number % 50}"
        answer = client.ask("/" + name)
        assert (answer.status, answer.body, answer.framing, answer.closes) == (200, body(name), "length", False)


@pytest.mark.parametrize("name", ["empty", "small", "middle", "big"])
def test_bodies_of_any_size_and_then_another_request(client: HttpClient, name: str) -> None:
    for _ in range(3):
        assert client.ask("/" + name).body == body(name)
        assert client.ask("/n1").body == body("n1")


def test_head_has_the_length_and_no_body(client: HttpClient) -> None:
    for name in ("small", "big", "empty"):
        answer = client.ask("/" + name, method=b"HEAD")
        assert (answer.status, answer.get(b"content-length")) == (200, b"%d" % SIZES[name])
    assert client.ask("/missing", method=b"HEAD").status == 404
    assert client.ask("/n2").body == body("n2")


PIPELINED = b"".join(request(f"/n{number}") for number in range(50))


@pytest.mark.parametrize("step", [len(PIPELINED), 1000, 61, 7], ids=lambda step: f"{step} bytes at a time")
def test_pipelined_requests_are_answered_in_order(client: HttpClient, step: int) -> None:
    client.send(*(PIPELINED[start : start + step] for start in range(0, len(PIPELINED), step)))
    assert [client.answer().body for _ in range(50)] == [body(f"n{number}") for number in range(50)]


def test_more_pipelined_requests_than_are_answered_in_a_row(client: HttpClient) -> None:
    """All of them are in the proxy's hands after one packet: no byte that comes later wakes it."""
    wanted = [f"n{number % 50}" for number in range(200)]
    client.send(b"".join(b"GET /%s HTTP/1.1\r\nHost:h\r\n\r\n" % name.encode() for name in wanted))
    assert [client.answer().body for _ in wanted] == [body(name) for name in wanted]


def test_pipelined_large_and_small_answers_keep_their_order(client: HttpClient) -> None:
    wanted = ["small", "big", "n1", "big", "middle", "missing", "n2"]
    client.send(b"".join(request("/" + name) for name in wanted))
    answers = [client.answer() for _ in wanted]
    assert [answer.body for answer in answers if answer.status == 200] == [
        body(name) for name in wanted if name != "missing"
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 404, 200]


def test_who_asks_and_closes_its_side_gets_all_answers(client: HttpClient) -> None:
    client.send(PIPELINED).end()
    assert [client.answer().body for _ in range(50)] == [body(f"n{number}") for number in range(50)]
    assert client.rest() == b""


def test_line_ends_between_requests_and_before_the_first(client: HttpClient) -> None:
    client.send(b"\r\n" + request("/n1") + b"\r\n\r\n" + request("/n2"))
    assert [client.answer().body, client.answer().body] == [body("n1"), body("n2")]


# -- the end of a connection ------------------------------------------------------------------------------------------
def test_connection_close_ends_it(client: HttpClient) -> None:
    assert client.ask("/n1").body == body("n1")
    answer = client.ask("/n2", b"Connection: close")
    assert (answer.body, answer.closes) == (body("n2"), True)
    assert client.rest() == b""


def test_nothing_is_answered_behind_connection_close(client: HttpClient) -> None:
    client.send(request("/n1", b"Connection: close") + request("/n2"))
    assert client.answer().closes
    assert client.rest() == b""


@pytest.mark.parametrize("name", ["n1", "big"])
def test_http_1_0_closes_unless_it_is_asked_to_stay(client: HttpClient, name: str) -> None:
    answer = client.ask("/" + name, b"Connection: keep-alive", version=b"1.0")
    assert (answer.body, answer.get(b"connection")) == (body(name), b"keep-alive")
    answer = client.ask("/" + name, version=b"1.0")
    assert (answer.body, answer.closes) == (body(name), True)
    assert client.rest() == b""


def test_http_1_0_needs_no_host(client: HttpClient) -> None:
    assert client.send(b"GET /n1 HTTP/1.0\r\n\r\n").answer().body == body("n1")


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"\0\0\0\0", b"GET /n1\r\n\r\n", request_bytes(b"/n1")])
def test_garbage_behind_an_answer_is_400_and_the_end(client: HttpClient, garbage: bytes) -> None:
    assert client.ask("/n1").body == body("n1")
    client.send(garbage)
    answer = client.answer()
    assert (answer.status, answer.closes) == (400, True)
    assert client.rest() == b""


def test_garbage_pipelined_behind_a_request_comes_after_its_answer(client: HttpClient) -> None:
    client.send(request("/n1") + request("/big") + b"GET / HTTP/1.1\r\n\r\n" + request("/n2"))
    assert [client.answer().body, client.answer().body] == [body("n1"), body("big")]
    assert client.answer().status == 400
    assert client.rest() == b""


def test_half_a_head_and_the_end_is_400(client: HttpClient) -> None:
    assert client.ask("/n1").status == 200
    client.send(b"GET /n1 HTTP/1.1\r\nHos").end()
    assert client.answer().status == 400
    assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"GET /n1 HT", b"GET /n1 HTTP/1.1\r\nHo"])
def test_half_a_first_head_and_the_end_is_400(client: HttpClient, sent: bytes) -> None:
    client.send(sent).end()
    assert client.answer().status == 400
    assert client.rest() == b""


# -- time limits ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sent", [b"GET /n1 HT", b"GET /n1 HTTP/1.1\r\nHo"])
def test_a_head_that_does_not_end_is_408(served: DaemonYard, sent: bytes) -> None:
    proxy = served.start_proxy(env={"WEBPROXY_REQUEST_TIMEOUT_S": "0.2", "WEBPROXY_KEEPALIVE_S": "3600"})
    with HttpClient(proxy.port) as later:
        assert later.ask("/n1").status == 200
        with HttpClient(proxy.port) as first:
            for client in (first, later):
                client.send(sent)
                answer = client.answer()
                assert (answer.status, answer.closes) == (408, True)
                assert client.rest() == b""
    assert proxy.stop() == 0


def test_a_head_that_comes_byte_by_byte_has_the_same_limit(served: DaemonYard) -> None:
    """Each byte wakes the proxy, and gives no new time."""
    proxy = served.start_proxy(env={"WEBPROXY_REQUEST_TIMEOUT_S": "0.3", "WEBPROXY_KEEPALIVE_S": "3600"})
    with HttpClient(proxy.port) as client:
        client.send(b"GET /n1 HTTP/1.1\r\nX: ")
        told = threading.Event()

        def drip() -> None:
            try:
                while not told.wait(0.02):
                    client.socket.send(b"x")
            except OSError:  # it was told, and went on
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert client.answer().status == 408
        finally:
            told.set()
            dripping.join()


def dripped(client: HttpClient, drip: bytes) -> bytes:
    """All that comes until the end while the client goes on sending these, one every 20 ms."""
    told = threading.Event()

    def drips() -> None:
        try:
            while not told.wait(0.02):
                client.socket.send(drip)
        except OSError:  # it was told, and went on
            pass

    dripping = threading.Thread(target=drips)
    dripping.start()
    try:
        return client.rest()
    finally:
        told.set()
        dripping.join()


SLOW_BODIES = {
    "length": (request("/x", b"Content-Length: 5000", method=b"PUT"), b"x", b"HTTP/1.1 408 "),
    "chunks": (request("/x", b"Transfer-Encoding: chunked", method=b"PUT"), b"1\r\nx\r\n", b"HTTP/1.1 408 "),
    "framing": (request("/x", b"Transfer-Encoding: chunked", method=b"PUT") + b"5;", b"x", b"HTTP/1.1 408 "),
    "continue": (
        request("/x", b"Content-Length: 5000", b"Expect: 100-continue", method=b"PUT"),
        b"x",
        CONTINUED + b"HTTP/1.1 408 ",
    ),
    "GET": (request("/x", b"Content-Length: 5000"), b"x", b"HTTP/1.1 408 "),
    "PURGE": (request("/x", b"Content-Length: 5000", method=b"PURGE"), b"x", b"HTTP/1.1 200 "),
    "OPTIONS": (request("*", b"Content-Length: 5000", method=b"OPTIONS"), b"x", b"HTTP/1.1 200 "),
    "refused": (request("/x", b"Content-Length: 5000", method=b"TRACE"), b"x", b"HTTP/1.1 501 "),
    "getfile": (b"GETFILE GET /", b"x", b"GETFILE INVALID"),
}


@pytest.fixture(scope="module")
def impatient(served: DaemonYard) -> Iterator[DaemonProcess]:
    """A proxy that wants 1,000 bytes in half a second, and an origin that wants every body."""
    env = {
        "WEBPROXY_CLIENT_MIN_RATE_BYTES_PER_S": "2000",
        "WEBPROXY_CLIENT_RATE_WINDOW_S": "0.5",
        "WEBPROXY_REQUEST_TIMEOUT_S": "1",
        "WEBPROXY_KEEPALIVE_S": "3600",
    }
    route = Route(body=b"done", methods=("GET", "PUT"))
    with OriginStub({"/x": route}) as origin:
        daemon = served.start_proxy("-s", origin.url, env=env)
        yield daemon
        assert daemon.stop() == 0


@pytest.mark.parametrize("name", SLOW_BODIES)
def test_a_body_that_comes_byte_by_byte_ends_its_connection(impatient: DaemonProcess, name: str) -> None:
    """Nothing here is silent for long."""
    head, drip, answer = SLOW_BODIES[name]
    with HttpClient(impatient.port) as client:
        client.send(head)
        assert dripped(client, drip).startswith(answer)


def test_an_idle_connection_is_closed_without_a_word(served: DaemonYard) -> None:
    proxy = served.start_proxy(env={"WEBPROXY_REQUEST_TIMEOUT_S": "3600", "WEBPROXY_KEEPALIVE_S": "2"})
    with HttpClient(proxy.port) as client:
        for _ in range(3):
            assert client.ask("/n1").status == 200
        assert client.rest() == b""
    assert proxy.stop() == 0


# -- what they cost ---------------------------------------------------------------------------------------------------
def test_slow_heads_cost_no_worker(proxy: DaemonProcess) -> None:
    head = request("/small", b"X: " + b"y" * 100)
    with ExitStack() as stack:
        slow = [stack.enter_context(HttpClient(proxy.port)) for _ in range(100)]
        marks = [0, 1, 5, 20, 60, len(head) - 1]
        for start, stop in itertools.pairwise(marks):
            for client in slow:
                client.send(*(head[index : index + 1] for index in range(start, stop)))
            with HttpClient(proxy.port) as fast:
                assert [fast.ask("/middle").body for _ in range(5)] == [body("middle")] * 5
            assert ask(proxy.port, "/small").body == body("small")
        for client in slow:
            client.send(head[-1:])
        assert [client.answer().body for client in slow] == [body("small")] * 100


def test_thousands_of_idle_connections_are_held_while_others_are_served(served: DaemonYard) -> None:
    wanted, spare = 5_000, 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted + spare:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    proxy = served.start_proxy("-t", "4", env={"WEBPROXY_KEEPALIVE_S": "3600"})
    assert ask(proxy.port, "/big").body == body("big")  # opens lasting descriptors
    threads, idle_descriptors = proxy.thread_count(), proxy.settled_descriptor_count()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            idle = []
            for number in range(wanted):
                client = stack.enter_context(HttpClient(proxy.port))
                assert client.ask(f"/n{number % 50}").status == 200
                idle.append(client)
                if number % 500 == 0:
                    assert ask(proxy.port, "/middle").body == body("middle")
            assert proxy.descriptor_count() >= wanted
            assert proxy.thread_count() == threads
            with HttpClient(proxy.port) as busy:
                for _ in range(200):
                    assert busy.ask("/n7").body == body("n7")
                assert busy.ask("/big").body == body("big")
            for number, client in enumerate(idle[::7]):
                name = f"n{number % 50}"
                assert client.ask("/" + name).body == body(name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: proxy.descriptor_count() <= idle_descriptors, what="closed connections")
    assert proxy.stop() == 0


def test_beyond_the_most_connections_the_answer_is_503_or_error(served: DaemonYard) -> None:
    """Whatever is wanted: also a request that arrives whole, and an upload that goes on being sent."""
    proxy = served.start_proxy(env={"WEBPROXY_CONNECTIONS_MAX": "3", "WEBPROXY_KEEPALIVE_S": "3600"})
    with ExitStack() as stack:
        for _ in range(3):
            kept = stack.enter_context(HttpClient(proxy.port))
            assert kept.ask("/n1").status == 200

        def refused() -> bool:
            """A connection idles a moment after its answer."""
            with HttpClient(proxy.port) as client:
                answer = client.ask("/n1")
                if answer.status != 503:
                    return False
                assert (answer.closes, answer.get(b"retry-after"), client.rest()) == (True, b"1", b"")
                return True

        wait_until(refused)
        for _ in range(300):
            assert ask(proxy.port, "/n1").status is Status.ERROR
            assert refused()
        with HttpClient(proxy.port) as client:
            client.send(request("/n1", b"Content-Length: 1000000", method=b"PUT") + bytes(60_000))
            assert client.answer().status == 503
            client.send(bytes(60_000))
            assert client.rest() == b"", "no reset"
        assert kept.ask("/n1").status == 200, "the others stay"
    wait_until(lambda: not refused())
    told = proxy.events("connection refused")
    assert {(event["kind"], event["reason"]) for event in told} == {("connections", "too many connections")}
    assert told[-1]["refused"] == len(told), "each is counted"
    assert proxy.stop() == 0


def test_descriptors_and_threads_stay_level_over_two_thousand_connections(proxy: DaemonProcess) -> None:
    before = proxy.settled_descriptor_count()
    for number in range(2_000):
        with HttpClient(proxy.port) as client:
            if number % 4 == 1:
                client.send(request("/n1"))
            elif number % 4 == 2:
                client.send(b"GET /n1 HT")
            elif number % 4 == 3:
                assert client.ask("/n1", b"Connection: close").status == 200
            else:
                assert client.ask("/n1").status == 200
    wait_until(lambda: proxy.descriptor_count() <= before, what="closed connections")


# -- slow and leaving clients -----------------------------------------------------------------------------------------
def test_a_slow_reader_is_parked_and_gets_every_byte_and_its_next_request(served: DaemonYard) -> None:
    """One worker, one segment: if the slow one held either, nobody else would be served."""
    proxy = served.start_proxy("-t", "1", "-n", "1", "-z", "65536", env={"WEBPROXY_KEEPALIVE_S": "3600"})
    with HttpClient(proxy.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as slow:
        slow.send(request("/big"))
        slow.wait_for_beginning()
        for _ in range(20):
            assert ask(proxy.port, "/small").body == body("small")
            with HttpClient(proxy.port) as fast:
                assert fast.ask("/big").body == body("big")
        assert slow.answer().body == body("big")
        assert slow.ask("/n1").body == body("n1")
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["retired"] == 0


def test_who_asks_and_does_not_read_costs_no_worker(served: DaemonYard) -> None:
    """Small answers, many of them: more than any buffer holds, and the only worker serves others."""
    proxy = served.start_proxy("-t", "1", "-n", "2", env={"WEBPROXY_KEEPALIVE_S": "3600"})
    with HttpClient(proxy.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as greedy:
        asked = 1000
        writer = threading.Thread(target=greedy.send, args=(request("/middle") * asked,))
        writer.start()
        try:
            for _ in range(50):
                assert ask(proxy.port, "/small").body == body("small")
            assert [greedy.answer().body for _ in range(asked)] == [body("middle")] * asked
        finally:
            greedy.socket.shutdown(socket.SHUT_RDWR) if writer.is_alive() else None
            writer.join()
    assert proxy.stop() == 0


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_who_leaves_in_mid_body_costs_nothing(served: DaemonYard, reset: bool) -> None:
    proxy = served.start_proxy("-t", "4", "-n", "4", "-z", "65536")
    assert ask(proxy.port, "/big").body == body("big")  # opens lasting descriptors
    before = proxy.settled_descriptor_count()
    for _ in range(20):
        with HttpClient(proxy.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            client.send(request("/big") + request("/small"))
            client.wait_for_beginning()
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with HttpClient(proxy.port) as client:
        assert [client.ask("/big").body, client.ask("/n1").body] == [body("big"), body("n1")]
    wait_until(lambda: proxy.descriptor_count() <= before, what="closed connections")
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["leased"], stopped["retired"], stopped["unfinished"]) == (0, 0, 0)


# -- two protocols ----------------------------------------------------------------------------------------------------
def test_getfile_and_http_mixed_on_one_port(proxy: DaemonProcess) -> None:
    failures: list[str] = []

    def getfile(number: int) -> None:
        for turn in range(40):
            name = f"n{(number * 7 + turn) % 50}"
            if ask(proxy.port, "/" + name) != Answer(Status.OK, body(name), SIZES[name]):
                failures.append(f"getfile {name}")

    def http(number: int) -> None:
        with HttpClient(proxy.port) as client:
            for turn in range(100):
                name = f"n{(number * 3 + turn) % 50}" if turn % 25 else "big"
                if client.ask("/" + name).body != body(name):
                    failures.append(f"http {name}")

    threads = [threading.Thread(target=kind, args=(number,)) for number in range(12) for kind in (getfile, http)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_busy_connections_do_not_keep_a_new_one_out(served: DaemonYard) -> None:
    """More clients than workers, each with its next request there as soon as it has its answer."""
    proxy = served.start_proxy("-t", "2")
    done = threading.Event()

    def hammer() -> None:
        with HttpClient(proxy.port) as client:
            while not done.is_set():
                client.send(request("/n1") * 20)
                assert [client.answer().status for _ in range(20)] == [200] * 20

    hammers = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in hammers:
        thread.start()
    try:
        for _ in range(20):
            assert ask(proxy.port, "/small").body == body("small")
            with HttpClient(proxy.port) as client:
                assert client.ask("/small").body == body("small")
    finally:
        done.set()
        for thread in hammers:
            thread.join()
    assert proxy.stop() == 0


def test_only_getfile(served: DaemonYard) -> None:
    proxy = served.start_proxy("--protocols", "getfile")
    assert ask(proxy.port, "/n1").body == body("n1")
    for pieces in ([request("/n1")], [b"GET", request("/n1")[3:]]):
        with HttpClient(proxy.port) as client:
            assert client.send(*pieces).rest() == b"GETFILE INVALID\r\n\r\n"
    assert proxy.stop() == 0


@pytest.mark.parametrize("cut", [0, 1, 4, 20])
def test_only_http(served: DaemonYard, cut: int) -> None:
    proxy = served.start_proxy("--protocols", "http", env={"WEBPROXY_REQUEST_TIMEOUT_S": "3600"})
    for data, status in ((request("/n1"), 200), (request_bytes(b"/n1"), 400), (b"garbage in one line\r\n", 400)):
        with HttpClient(proxy.port) as client:
            assert client.send(*filter(None, (data[:cut], data[cut:]))).answer().status == status
    with HttpClient(proxy.port) as client:
        client.end()
        assert client.rest() == b""
    assert proxy.stop() == 0


def test_only_http_a_silent_client_is_closed_without_a_word(served: DaemonYard) -> None:
    proxy = served.start_proxy("--protocols", "http", env={"WEBPROXY_KEEPALIVE_S": "0.2"})
    with HttpClient(proxy.port) as client:
        assert client.rest() == b""
    assert proxy.stop() == 0


# -- the end of the daemon --------------------------------------------------------------------------------------------
def test_at_the_stop_idle_connections_end_and_what_runs_goes_on(served: DaemonYard) -> None:
    env = {"WEBPROXY_DRAIN_S": "3600", "WEBPROXY_KEEPALIVE_S": "3600", "WEBPROXY_REQUEST_TIMEOUT_S": "3600"}
    proxy = served.start_proxy("-t", "2", env=env)
    with ExitStack() as stack:
        idle = [stack.enter_context(HttpClient(proxy.port)) for _ in range(20)]
        assert [client.ask("/n1").status for client in idle] == [200] * 20
        half = stack.enter_context(HttpClient(proxy.port))
        half.send(request("/n2")[:20])
        slow = stack.enter_context(HttpClient(proxy.port, receive_buffer_bytes=SMALL_BUFFER_BYTES))
        slow.send(request("/huge"))
        slow.wait_for_beginning()
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(proxy.port))
        assert [client.rest() for client in idle] == [b""] * 20
        assert proxy.running
        answer = half.send(request("/n2")[20:]).answer()
        assert (answer.body, answer.closes) == (body("n2"), True)
        assert slow.answer().body == body("huge")
        assert slow.rest() == b""
    assert proxy.wait_exit() == 0
    assert proxy.wait_event("stopped")["unfinished"] == 0


def test_at_the_stop_idle_connections_alone_hold_nothing_up(served: DaemonYard) -> None:
    proxy = served.start_proxy(env={"WEBPROXY_DRAIN_S": "3600", "WEBPROXY_KEEPALIVE_S": "3600"})
    with HttpClient(proxy.port) as client:
        assert client.ask("/n1").status == 200
        assert proxy.stop() == 0
        assert client.rest() == b""


# -- bodies of requests, and of origins -------------------------------------------------------------------------------
@pytest.fixture
def origin() -> Iterator[OriginStub]:
    routes = {
        "/upload": Route(methods={"POST", "PUT"}, status=201, echo=True),
        "/early": Route(methods={"POST"}, status=403, body=b"no", reads_body=False),
        "/length": Route(body=b"l" * 1000, headers={"Cache-Control": "no-store"}),
        "/chunked": Route(body=b"c" * 100_000, framing=Framing.CHUNKED, headers={"Cache-Control": "no-store"}),
        "/close": Route(body=b"k" * 1000, framing=Framing.CLOSE, headers={"Cache-Control": "no-store"}),
        "/stored-chunked": Route(body=b"s" * 5000, framing=Framing.CHUNKED, headers={"Cache-Control": "max-age=60"}),
        "/none": Route(status=204, headers={"Cache-Control": "max-age=60"}),
        "/held": Route(hold=threading.Event(), hold_head=True),
    }
    with OriginStub(routes=routes) as stub:
        yield stub


@pytest.fixture
def fetching(yard: DaemonYard, origin: OriginStub) -> Iterator[DaemonProcess]:
    """A proxy with an origin, and a cache to fill."""
    yard.start_cache("-t", "2")
    daemon = yard.start_proxy("-t", "4", "-s", origin.url, env={"WEBPROXY_KEEPALIVE_S": "3600"})
    yield daemon
    assert daemon.stop() == 0
    assert [event for event in daemon.events() if event["level"] in ("error", "critical")] == []


@pytest.fixture
def asker(fetching: DaemonProcess) -> Iterator[HttpClient]:
    with HttpClient(fetching.port) as made:
        yield made


def post(target: str, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return request(target, *lines, method=b"POST", version=version)


@pytest.mark.parametrize("lines", [(), (b"Cache-Control: no-store",)], ids=["fetched", "passed"])
def test_who_closes_its_side_does_not_wait_for_an_origin(asker: HttpClient, lines: tuple[bytes, ...]) -> None:
    """Nothing tells it from a client that has closed; the origin never answers."""
    asker.send(request("/held", *lines)).end()
    assert asker.rest() == b""


def test_who_expects_to_be_told_is_told_and_then_sends(asker: HttpClient) -> None:
    for _ in range(2):
        asker.send(post("/upload", b"Content-Length: 5", b"Expect: 100-continue"))
        assert asker.answer() == CONTINUE
        answer = asker.send(b"hello").answer()
        assert answer.status == 201
        assert b'"body": "hello"' in answer.body
    assert asker.ask("/length").status == 200


def test_who_does_not_wait_to_be_told_is_served_too(asker: HttpClient) -> None:
    asker.send(post("/upload", b"Content-Length: 5", b"Expect: 100-continue") + b"hello" + request("/length"))
    answer = asker.answer()
    answer = asker.answer() if answer.status == 100 else answer
    assert b'"body": "hello"' in answer.body
    assert asker.answer().body == b"l" * 1000


def test_who_is_refused_before_its_body_sends_none(client: HttpClient) -> None:
    """No 100 was said: whether a body comes is unclear, and the connection ends."""
    client.send(post("/n1", b"Content-Length: 5", b"Expect: 100-continue"))
    answer = client.answer()
    assert (answer.status, answer.closes) == (405, True)
    assert client.rest() == b""


def test_a_chunked_body_goes_on(asker: HttpClient) -> None:
    chunks = b"5\r\nhello\r\n8;x=y\r\n, world!\r\n0\r\nTrailer: t\r\n\r\n"
    for step in (len(chunks), 3, 1):
        asker.send(post("/upload", b"Transfer-Encoding: chunked"))
        asker.send(*(chunks[start : start + step] for start in range(0, len(chunks), step)))
        assert b'"body": "hello, world!"' in asker.answer().body


UNREAD = request("/big")


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"Content-Length: %d" % len(UNREAD), UNREAD),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(UNREAD), UNREAD)),
    ],
    ids=["length", "chunked"],
)
def test_a_body_that_nobody_reads_is_no_request(client: HttpClient, line: bytes, sent: bytes) -> None:
    assert client.ask("/n1").status == 200
    client.send(request("/n1", line) + sent + request("/n2"))
    assert client.answer().status in (200, 404)
    assert client.answer().body == body("n2")


def test_a_body_that_goes_to_the_origin_is_no_request(asker: HttpClient, origin: OriginStub) -> None:
    assert asker.ask("/stored-chunked").status == 200
    smuggled = request("/smuggled")
    asker.send(request("/stored-chunked", b"Content-Length: %d" % len(smuggled)) + smuggled + request("/length"))
    assert [asker.answer().body, asker.answer().body] == [b"s" * 5000, b"l" * 1000]
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    asker.send(request("/stored-chunked", b"Transfer-Encoding: chunked") + chunk + request("/length"))
    assert [asker.answer().body, asker.answer().body] == [b"s" * 5000, b"l" * 1000]
    assert origin.count("/smuggled") == 0


def test_an_origin_that_answers_early_leaves_no_doubt(asker: HttpClient, origin: OriginStub) -> None:
    """The part of the body that was sent is no request: the connection ends, or the next request follows the body."""
    smuggled = request("/smuggled")
    asker.send(post("/early", b"Content-Length: %d" % len(smuggled)) + smuggled)
    answer = asker.answer()
    assert answer.status in (403, 502)
    if answer.closes:
        assert asker.rest() == b""
    else:
        assert asker.ask("/length").body == b"l" * 1000
    assert origin.count("/smuggled") == 0


@pytest.mark.parametrize(
    ("target", "framing"),
    [("/length", "length"), ("/chunked", "chunked"), ("/close", "chunked"), ("/stored-chunked", None)],
)
def test_each_answer_is_framed_in_one_way(
    asker: HttpClient, origin: OriginStub, target: str, framing: str | None
) -> None:
    for _ in range(3):
        answer = asker.ask(target)
        assert answer.status == 200
        assert answer.framing == framing or framing is None
        assert len(set(answer.body)) == 1
        head = asker.ask(target, method=b"HEAD")
        assert head.status == 200


@pytest.mark.parametrize("target", ["/chunked", "/close"])
def test_a_body_of_unknown_length_ends_the_connection_of_http_1_0(fetching: DaemonProcess, target: str) -> None:
    with HttpClient(fetching.port) as client:
        answer = client.ask(target, b"Connection: keep-alive", version=b"1.0")
        assert (answer.status, answer.framing, answer.closes) == (200, "close", True)
        assert len(answer.body) in (1000, 100_000)


def test_a_204_has_no_length_from_the_origin_and_from_the_cache(asker: HttpClient) -> None:
    for _ in range(3):
        assert (answer := asker.ask("/none")).status == 204
        assert answer.framing == "none"
