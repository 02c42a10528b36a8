"""Many long downloads at once through small segments: they take turns, all come whole, and the short ones pass by."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.client import PacedDownload, ask, connect, parse_answer, receive_to_end
from tests.support.contents import write_files
from tests.support.daemons import NO_HOT_TABLE
from tests.support.waiting import wait_until
from webproxy.getfile import Status, request_bytes

LONG_BYTES = 3_000_000
SMALL_SEGMENTS = ("-n", "8", "-z", "8192")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory to serve, and what is in it."""
    directory = tmp_path_factory.mktemp("long") / "files"
    return directory, write_files(directory, {"long": LONG_BYTES, "huge": 40 << 20, "small": 3_000})


@contextmanager
def streaming(port, count):
    """Start `count` downloads of the huge file, the first of which has begun; gives a function that collects them."""
    with ExitStack() as clients, ThreadPoolExecutor(count) as crew:
        opened = [clients.enter_context(connect(port)) for _ in range(count)]
        for client in opened:
            client.sendall(request_bytes(b"/huge"))
        first = opened[0].recv(1)

        def collect():
            rests = list(crew.map(receive_to_end, opened))
            return [first + rests[0], *rests[1:]]

        yield collect


@pytest.mark.parametrize("workers", [2, 8, 24])
def test_more_long_downloads_than_places(yard, files, workers):
    """With small objects between them, in a pool that has room for two long ones."""
    directory, bodies = files
    cache = yard.start_cache(content=directory, env=NO_HOT_TABLE)
    proxy = yard.start_proxy("-t", str(workers), *SMALL_SEGMENTS)
    assert ask(proxy.port, "/long").body == bodies["/long"]
    with ThreadPoolExecutor(16) as crew:
        paths = ["/long"] * 48 + ["/small"] * 200
        answers = list(crew.map(lambda path: (path, ask(proxy.port, path).body), paths))
    assert all(body == bodies[path] for path, body in answers)
    assert (proxy.stop(), cache.stop()) == (0, 0)
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["retired"], stopped["lease_timeouts"]) == (249, 0, 0)
    assert stopped["widest_lease"] == 4


def test_http_and_getfile_take_turns_with_each_other(yard, files):
    """Over HTTP a response begins before it lines up; no file comes from the hot table here."""
    directory, bodies = files
    yard.start_cache(content=directory, env=NO_HOT_TABLE)
    proxy = yard.start_proxy(*SMALL_SEGMENTS, "--segments-per-transfer-max", "8")

    def over_http(path: str) -> bytes:
        with connect(proxy.port) as client:
            client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
            return receive_to_end(client).partition(b"\r\n\r\n")[2]

    with ThreadPoolExecutor(12) as crew:
        http = [crew.submit(over_http, "/long") for _ in range(20)]
        getfile = [crew.submit(ask, proxy.port, "/long") for _ in range(20)]
        assert {reply.result() for reply in http} == {bodies["/long"]}
        assert {answer.result().body for answer in getfile} == {bodies["/long"]}
    assert proxy.stop() == 0


@pytest.mark.parametrize("segment_bytes", ["8192", "262144"])
def test_one_segment_goes_round(yard, files, segment_bytes):
    """A download that nobody could wait for the end of: the others get the only segment in its middle."""
    directory, bodies = files
    yard.start_cache(content=directory, env=NO_HOT_TABLE)
    proxy = yard.start_proxy("-t", "4", "-n", "1", "-z", segment_bytes)
    with PacedDownload(proxy.port, b"/huge") as download, ThreadPoolExecutor(3) as crew:
        others = [crew.submit(ask, proxy.port, path) for path in ["/small", "/long"] * 3]
        assert all(answer.result().status is Status.OK for answer in others)
        assert download.finish().body == bodies["/huge"]
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["lease_timeouts"] == 0


def test_who_waits_for_a_place_is_served_while_the_daemon_drains(yard, files):
    directory, bodies = files
    yard.start_cache(content=directory, env=NO_HOT_TABLE)
    proxy = yard.start_proxy("-t", "2", *SMALL_SEGMENTS, env={"WEBPROXY_DRAIN_S": "3600"})
    assert ask(proxy.port, "/huge").body == bodies["/huge"]
    with streaming(proxy.port, 6) as replies:
        proxy.signal(signal.SIGTERM)
        answers = [parse_answer(reply) for reply in replies()]
    assert proxy.wait_exit() == 0
    assert [answer.body for answer in answers] == [bodies["/huge"]] * 6
    assert proxy.wait_event("stopped")["unfinished"] == 0


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_cache_dies_while_many_wait_for_a_place(yard, files, how):
    """Begun transfers are cut short, waiting ones get an error; nobody waits for ever, and the next is served."""
    directory, bodies = files
    cache = yard.start_cache(content=directory, env=NO_HOT_TABLE)
    proxy = yard.start_proxy(
        "-t", "4", *SMALL_SEGMENTS, env={"WEBPROXY_CACHE_TIMEOUT_S": "0.5", "WEBPROXY_BETWEEN_BYTES_TIMEOUT_S": "0.5"}
    )
    wait_until(lambda: ask(proxy.port, "/huge").body == bodies["/huge"])  # cut short where this machine stood still
    with streaming(proxy.port, 12) as replies:
        os.kill(cache.pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        whole = replies()
    if how == "stop":
        os.kill(cache.pid, signal.SIGCONT)
        assert cache.stop() == 0
    else:
        cache.wait_exit()
    for reply in whole:
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head in (b"GETFILE ERROR", b"GETFILE OK %d" % (40 << 20))
        assert bodies["/huge"].startswith(body)
    yard.start_cache(content=directory, env=NO_HOT_TABLE)
    wait_until(lambda: ask(proxy.port, "/long").body == bodies["/long"], what="service by the next cache")
    assert proxy.stop() == 0
