"""Clients that go away or do not read, against a running proxy: nobody else notices, and no byte is wrong."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.client import Answer, ask, ask_all, connect, parse_answer, receive_to_end
from tests.support.contents import body_of, write_files
from tests.support.daemons import NO_HOT_TABLE, DaemonProcess, DaemonYard
from tests.support.waiting import wait_until
from webproxy.getfile import Status, Wire, request_bytes

BIG_BYTES = 10_000_000
SMALL_BYTES = 8_192
SMALL = Answer(Status.OK, body_of("small", SMALL_BYTES), SMALL_BYTES)
BIG = Answer(Status.OK, body_of("big", BIG_BYTES), BIG_BYTES)
BUFFER_BYTES = 4_096  # small, so that the body does not fit into the sockets


@pytest.fixture(scope="module")
def yard_with_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonYard]:
    directory = tmp_path_factory.mktemp("clients")
    write_files(directory / "files", {"big": BIG_BYTES, "small": SMALL_BYTES})
    with DaemonYard(directory) as yard:
        yard.start_cache("-t", "4", content=directory / "files", env=NO_HOT_TABLE)
        yield yard


def begin(port: int, path: bytes) -> tuple[socket.socket, bytes]:
    """A client that has asked, and has taken the first bytes and no more."""
    client = connect(port, receive_buffer_bytes=BUFFER_BYTES)
    client.sendall(request_bytes(path))
    return client, client.recv(1_000)


def hang_up(client: socket.socket, *, reset: bool) -> None:
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def complaints(daemon: DaemonProcess) -> list[str]:
    return [event["event"] for event in daemon.events() if event["level"] in ("error", "critical")]


@pytest.mark.parametrize("wire", list(Wire))
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_who_leaves_costs_nothing(yard_with_cache, wire, reset):
    """Before the reply, and in mid-body: the segments come back clean, not retired."""
    proxy = yard_with_cache.start_proxy("-t", "4", "-n", "4", "-z", "65536", "--wire", wire)
    assert ask(proxy.port, "/small") == SMALL
    for _ in range(20):
        client = connect(proxy.port)
        client.sendall(request_bytes(b"/big"))
        hang_up(client, reset=reset)
    for _ in range(10):
        hang_up(begin(proxy.port, b"/big")[0], reset=reset)
    assert ask_all(proxy.port, ["/small", "/big"] * 6, clients=6) == [SMALL, BIG] * 6
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["unfinished"], stopped["leased"]) == (13, 0, 0)
    assert stopped["client_gone"] + stopped["hit"] >= 13 + 10
    assert complaints(proxy) == []


@pytest.mark.parametrize("wire", list(Wire))
def test_a_slow_reader_gets_every_byte_and_nobody_notices(yard_with_cache, wire):
    """One segment, and a client that does not read: the segment is given back, and others use it."""
    proxy = yard_with_cache.start_proxy("-t", "2", "-n", "1", "-z", "65536", "--wire", wire)
    client, beginning = begin(proxy.port, b"/big")
    with client:
        for _ in range(30):
            assert ask(proxy.port, "/small") == SMALL
        assert ask(proxy.port, "/big") == BIG
        assert parse_answer(beginning + receive_to_end(client)) == BIG
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["retired"]) == (32, 0)
    assert stopped["leases"] > 32, "the slow one went on with a lease of its own each time"


def test_more_slow_readers_than_segments(yard_with_cache):
    proxy = yard_with_cache.start_proxy("-t", "8", "-n", "2", "-z", "65536")
    slow = [begin(proxy.port, b"/big") for _ in range(5)]
    try:
        assert ask_all(proxy.port, ["/small"] * 30, clients=3) == [SMALL] * 30
        assert [parse_answer(beginning + receive_to_end(client)) for client, beginning in slow] == [BIG] * 5
    finally:
        for client, _ in slow:
            client.close()
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["retired"] == 0


def test_a_reader_below_the_least_rate_is_closed_short(yard_with_cache):
    env = {"WEBPROXY_CLIENT_MIN_RATE_BYTES_PER_S": "1m", "WEBPROXY_CLIENT_RATE_WINDOW_S": "0.2"}
    proxy = yard_with_cache.start_proxy("-t", "1", "-n", "2", env=env)
    client, beginning = begin(proxy.port, b"/big")
    with client:
        assert ask(proxy.port, "/small") == SMALL, "the one worker is free again"
        assert proxy.wait_event("client dropped")["path"] == "/big"
        answer = parse_answer(beginning + receive_to_end(client))
    assert (answer.status, answer.length, answer.whole) == (Status.OK, BIG_BYTES, False)
    assert BIG.body.startswith(answer.body)
    assert proxy.stop() == 0


def test_a_client_that_never_closes_its_side_is_let_go(yard_with_cache):
    """It has its whole answer; its connection must not stay for ever."""
    proxy = yard_with_cache.start_proxy()
    assert ask(proxy.port, "/small") == SMALL
    idle = min(proxy.descriptor_count() for _ in range(5))
    clients = [connect(proxy.port) for _ in range(20)]
    try:
        for client in clients:
            client.sendall(request_bytes(b"/small"))
        assert [parse_answer(receive_to_end(client)) for client in clients] == [SMALL] * 20
        wait_until(lambda: proxy.descriptor_count() <= idle, what="closed connections")
    finally:
        for client in clients:
            client.close()
