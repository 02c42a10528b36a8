"""SIGTERM and SIGINT, at rest and in mid-transfer, on either side: drain, clean up, and the exit code."""

import signal

import pytest

from tests.support.client import (
    Answer,
    PacedDownload,
    ask,
    connect,
    parse_answer,
    receive_to_end,
    refuses_connections,
)
from tests.support.contents import write_files
from tests.support.names import names_of
from tests.support.waiting import wait_until
from tests.support.wall_clock import set_back
from webproxy.getfile import Status, request_bytes

OK, INTERRUPTED = 0, 130
BIG_BYTES = 48 << 20  # far more than what socket buffers and segments hold: its transfer runs while its client reads
LONG_DRAIN = {"WEBPROXY_DRAIN_S": "3600", "SIMPLECACHED_DRAIN_S": "3600"}
SMALL_BUFFER_BYTES = 4096
ONE_TRANSFER = ("--segments-per-transfer-max", "1")
"""Nothing widens the lease: a stopping cache would not take the rest of the body as a new request."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory to serve, and what is in it."""
    directory = tmp_path_factory.mktemp("stopping") / "files"
    return directory, write_files(directory, {"big": BIG_BYTES, "small": 500})


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_at_rest_both_end_with_0_and_leave_nothing(yard, files, signum):
    cache, proxy = yard.start_cache(content=files[0]), yard.start_proxy()
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    for daemon in (proxy, cache):
        daemon.signal(signum)
        assert daemon.wait_exit() == OK
        assert names_of({daemon.pid}) == []
        assert daemon.wait_event("stopped")["unfinished"] == 0
    assert not yard.has_cache()


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_ask_for_no_end_do_not_spoil_one(yard, signum):
    """They come until there is no process left, so also after the last handler is gone."""
    cache = yard.start_cache()
    for daemon in (yard.start_proxy("--workers", "2"), yard.start_proxy(), cache):
        daemon.signal(signal.SIGTERM)
        while daemon.running:
            daemon.signal(signum)
        assert daemon.wait_exit() == OK
        assert daemon.wait_event("stopped")


def test_a_wall_clock_that_is_set_back_holds_up_no_end(yard, files, tmp_path):
    """More workers wait for a command than the queue has room for messages."""
    clock = set_back(tmp_path)
    cache = yard.start_cache("-t", "24", content=files[0], env=clock)
    proxy = yard.start_proxy(env=clock)
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    for daemon in (cache, proxy):
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit() == OK
        assert daemon.wait_event("stopped")["unfinished"] == 0
        assert names_of({daemon.pid}) == []


@pytest.mark.parametrize("side", ["cache", "proxy"])
def test_a_running_transfer_is_finished(yard, files, side):
    cache, proxy = yard.start_cache(content=files[0], env=LONG_DRAIN), yard.start_proxy(*ONE_TRANSFER, env=LONG_DRAIN)
    daemons = {"cache": cache, "proxy": proxy}
    body = files[1]["/big"]
    port = proxy.port
    with PacedDownload(port, b"/big") as download:
        for signum in (signal.SIGTERM, signal.SIGHUP):  # which is not a second wish for the end
            daemons[side].signal(signum)
        wait_until(lambda: not yard.has_cache() if side == "cache" else refuses_connections(port))
        assert daemons[side].running
        assert download.finish() == Answer(Status.OK, body, len(body))
    assert daemons[side].wait_exit() == OK
    stopped = daemons[side].wait_event("stopped")
    assert stopped["unfinished"] == 0
    if side == "proxy":
        assert stopped["hit"] == 1
    else:
        assert (stopped["broken"], stopped["expired"]) == (0, 0)
    assert names_of({daemons[side].pid}) == []


def test_a_stopping_cache_takes_no_new_requests(yard, files):
    """The transfer under way continues, while a new request finds no cache."""
    cache = yard.start_cache(content=files[0], env=LONG_DRAIN)
    proxy = yard.start_proxy("-n", "4", *ONE_TRANSFER, env={**LONG_DRAIN, "WEBPROXY_CACHE_TIMEOUT_S": "2"})
    with PacedDownload(proxy.port, b"/big") as download:
        cache.signal(signal.SIGTERM)
        wait_until(lambda: ask(proxy.port, "/small").status is Status.ERROR)
        assert cache.running
        assert download.finish().body == files[1]["/big"]
    assert cache.wait_exit() == OK


@pytest.mark.parametrize("parked", [False, True], ids=["held by a worker", "parked"])
def test_a_second_signal_does_not_wait_for_a_client(yard, files, parked):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("-t", "1", env=LONG_DRAIN)
    port = proxy.port
    with connect(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
        client.sendall(request_bytes(b"/big"))
        beginning = client.recv(4096)  # and no more: this request cannot finish
        if parked:
            assert ask(port, "/small").body == files[1]["/small"], "the only worker has left the slow client"
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port))
        assert proxy.running
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit() == INTERRUPTED
        answer = parse_answer(beginning + receive_to_end(client))
        assert (answer.status, answer.length) == (Status.OK, BIG_BYTES)
        assert not answer.whole
        assert files[1]["/big"].startswith(answer.body)
    assert proxy.wait_event("stopped")["unfinished"] == 1
    assert names_of({proxy.pid}) == []


def test_a_parked_response_is_finished_before_the_end(yard, files):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("-t", "1", env=LONG_DRAIN)
    port = proxy.port
    with connect(port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
        client.sendall(request_bytes(b"/big"))
        beginning = client.recv(4096)
        assert ask(port, "/small").body == files[1]["/small"], "the only worker has left the slow client"
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port))
        assert parse_answer(beginning + receive_to_end(client)).body == files[1]["/big"]
    assert proxy.wait_exit() == OK


def test_a_second_signal_does_not_wait_for_a_proxy(yard, files):
    """The proxy stands still with a chunk in its hands: the cache's worker cannot finish."""
    cache = yard.start_cache(content=files[0], env=LONG_DRAIN)
    proxy = yard.start_proxy(env={"WEBPROXY_CACHE_TIMEOUT_S": "2", "GFCACHE_FAULT": "proxy.received:1:stop"})
    with connect(proxy.port) as client:
        client.sendall(request_bytes(b"/big"))
        wait_until(proxy.is_stopped)
        cache.signal(signal.SIGINT)
        wait_until(lambda: not yard.has_cache())
        assert cache.running
        cache.signal(signal.SIGINT)
        assert cache.wait_exit() == INTERRUPTED
        proxy.signal(signal.SIGCONT)
        answer = parse_answer(receive_to_end(client))
        assert (answer.status, answer.length, answer.whole) == (Status.OK, BIG_BYTES, False)
        assert files[1]["/big"].startswith(answer.body)
    assert cache.wait_event("stopped")["unfinished"] == 1
    assert names_of({cache.pid}) == []


def test_the_drain_limit_ends_the_wait(yard, files):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(env={"WEBPROXY_DRAIN_S": "0.2"})
    with connect(proxy.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
        client.sendall(request_bytes(b"/big"))
        assert client.recv(4096)
        assert proxy.stop() == INTERRUPTED
    assert proxy.wait_event("stopped")["unfinished"] == 1
    assert names_of({proxy.pid}) == []


def test_requests_that_were_sent_before_the_signal_are_answered(yard, files):
    """They wait in the listener's queue while the workers are held: closing it would reset them."""
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy("-t", "1", env=LONG_DRAIN)
    port = proxy.port
    proxy.signal(signal.SIGSTOP)
    wait_until(proxy.is_stopped)
    clients = [connect(port) for _ in range(20)]
    try:
        for client in clients:
            client.sendall(request_bytes(b"/small"))
        proxy.signal(signal.SIGTERM)
        proxy.signal(signal.SIGCONT)
        answers = [parse_answer(receive_to_end(client)) for client in clients]
    finally:
        for client in clients:
            client.close()
    body = files[1]["/small"]
    assert answers == [Answer(Status.OK, body, len(body))] * 20
    assert proxy.wait_exit() == OK
