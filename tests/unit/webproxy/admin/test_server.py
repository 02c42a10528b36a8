"""The admin server answers its paths, and outlives clients that are slow, rude or many."""

from __future__ import annotations

import json
import re
import socket
import threading
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from shmchannel.deadline import Deadline
from tests.support.waiting import wait_until
from webproxy.admin import server
from webproxy.admin.address import open_admin_listener
from webproxy.admin.overview import Overview, ProcessView
from webproxy.admin.server import ASKED_SECONDS, CONNECTIONS_MAX, KEPT_SECONDS, AdminServer, Pages, page

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXY = ProcessView(role="proxy", name="1", pid=1, state="live", accepts=True)


class Site:
    """A server whose overview the test says."""

    def __init__(self) -> None:
        self.processes: tuple[ProcessView, ...] = (PROXY,)
        self.now = 0.0
        self.taken = 0
        listener = open_admin_listener("127.0.0.1:0")
        self.address: tuple[str, int] = listener.getsockname()
        self.pages = Pages(self._take, clock=lambda: self.now)
        self.server = AdminServer(listener, self.pages, frozenset(("localhost",)))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def _take(self) -> Overview:
        self.taken += 1
        return Overview(taken_s=0.0, processes=self.processes, pages=(), segments=())

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics", "/stats", "/segments", "/ready?verbose"])
def test_every_path_is_answered(site: Site, path: str) -> None:
    status, body = site.ask(path)
    assert (status, bool(body)) == (200, True)
    assert site.ask(path, "HEAD") == (200, b"")


def test_an_unknown_path_is_told_what_there_is(site: Site) -> None:
    status, body = site.ask("/nothing")
    assert (status, b"/metrics" in body) == (404, True)


@pytest.mark.parametrize("path", ["/", "/stats", "/nothing"])
def test_by_a_strange_name_nothing_is_answered(site: Site, path: str) -> None:
    status, body = site.ask(path, Host="evil.example")
    assert (status, b"localhost" in body, b"evil" in body) == (421, True, False)
    assert site.taken == 0


def test_a_request_without_a_name_is_answered(site: Site) -> None:
    """As probes send it; browsers always say one."""
    with socket.create_connection(site.address, timeout=30) as client:
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_the_page_may_use_nothing_but_what_is_in_it() -> None:
    policy = page().headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    text = page().body.decode()
    assert " style=" not in text  # the policy forbids them, as it does handlers
    assert not re.search(r"\son[a-z]+=", text)
    assert set(re.findall(r"https?://[^\s'\"]+", text)) == {"http://www.w3.org/2000/svg"}  # a name of a language


def test_other_methods_are_refused(site: Site) -> None:
    assert site.ask("/stats", "POST")[0] == 501


@pytest.mark.parametrize(
    ("processes", "live", "ready"),
    [
        ((PROXY,), 200, 200),
        ((ProcessView(role="proxy", name="1", pid=1, state="live"),), 200, 503),
        ((ProcessView(role="proxy", name="1", pid=1, state="stuck"), PROXY), 200, 200),
        ((ProcessView(role="proxy", name="1", pid=1, state="stuck"),), 503, 503),
        ((ProcessView(role="cache", name="1", pid=1, state="live", accepts=True),), 503, 503),
        ((), 503, 503),
    ],
    ids=["serves", "stops", "one of two hangs", "hangs", "only a cache", "nobody"],
)
def test_health_and_readiness(site: Site, processes: tuple[ProcessView, ...], live: int, ready: int) -> None:
    site.processes = processes
    assert (site.ask("/health")[0], site.ask("/ready")[0]) == (live, ready)


def test_many_who_ask_at_once_cost_one_look(site: Site) -> None:
    for _ in range(3):
        assert json.loads(site.ask("/stats")[1])["processes"][0]["pid"] == 1
    assert site.taken == 1
    assert site.pages.answer("/stats") is site.pages.answer("/stats?again"), "nor is it written twice"
    before = site.pages.answer("/health")
    site.processes = ()
    site.now += KEPT_SECONDS + 1
    assert site.ask("/health")[0] == 503
    assert site.pages.answer("/health") is not before
    assert site.taken == 2
    site.ask("/")
    assert site.taken == 2, "the page is the same whatever there is"


def test_what_is_asked_for_is_renewed_before_somebody_asks(site: Site) -> None:
    site.pages.renew()
    assert site.taken == 0, "nobody has asked yet"
    assert site.pages.answer("/health").status == 200
    site.processes = ()
    for _ in range(5):
        site.now += KEPT_SECONDS
        site.pages.renew()
    assert site.taken == 6
    assert site.pages.answer("/health").status == 503
    assert site.taken == 6, "it was there"
    assert site.pages.answer("/ready").status == 503
    assert site.taken == 6, "written of what was looked at"
    site.now += ASKED_SECONDS + 1
    site.pages.renew()
    assert site.taken == 6, "nobody has asked for long"


def test_while_a_look_takes_its_time_what_is_kept_is_answered() -> None:
    """And whoever asks for the first time waits, and then finds what was looked at."""
    looks, slow, released = [], threading.Event(), threading.Event()

    def take() -> Overview:
        looks.append(slow.is_set())
        if slow.is_set():
            released.wait(30)
        return Overview(taken_s=float(len(looks)), processes=(PROXY,), pages=(), segments=())

    pages = Pages(take, clock=lambda: 0.0)
    first = pages.answer("/stats")
    slow.set()
    renewing = threading.Thread(target=pages.renew)
    renewing.start()
    try:
        wait_until(lambda: looks == [False, True])
        assert pages.answer("/stats") is first
    finally:
        released.set()
        renewing.join()
    assert json.loads(pages.answer("/stats").body)["taken_s"] == 2.0


def test_the_thread_that_renews_outlives_a_failed_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RENEW_SECONDS", 0.001)
    looks, stopping = [0], threading.Event()

    def take() -> Overview:
        looks[0] += 1
        if looks[0] == 2:
            raise OSError("shared memory cannot be listed")
        return Overview(taken_s=float(looks[0]), processes=(), pages=(), segments=())

    pages = Pages(take, clock=lambda: 0.0)
    pages.answer("/stats")
    thread = threading.Thread(target=pages.keep_fresh, args=(stopping,))
    thread.start()
    try:
        wait_until(lambda: json.loads(pages.answer("/stats").body)["taken_s"] >= 3.0)
    finally:
        stopping.set()
        thread.join()


def test_however_many_clients_say_nothing_who_asks_is_answered(site: Site) -> None:
    """The oldest of them gives way."""
    silent = [socket.create_connection(site.address, timeout=30) for _ in range(CONNECTIONS_MAX)]
    try:
        assert site.ask("/health")[0] == 200
        assert silent[0].recv(1) == b""
    finally:
        for client in silent:
            client.close()


def test_a_client_that_sends_a_byte_now_and_then_is_dropped_in_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLIENT_SECONDS", 0.2)
    with socket.create_connection(site.address, timeout=0.01) as client:
        deadline = Deadline.after(30)
        while not deadline.expired:
            try:
                client.sendall(b"G")  # each byte begins the time-out of the socket anew
                assert client.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert not deadline.expired
