"""Python's own clients through the pair to a real nginx: http.client on a connection that stays, and urllib."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.clients.site import Site
from tests.support.contents import body_of
from tests.support.waiting import WATCHDOG_S


def connected(site: Site) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", site.proxy.port, timeout=WATCHDOG_S)


def opener(site: Site, *, proxied: bool = False) -> urllib.request.OpenerDirector:
    """urllib without the proxies of the environment; `proxied`: with ours."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({"http": site.url} if proxied else {}))


def test_a_connection_that_stays(site: Site) -> None:
    bodies = {f"/keep-{number}.bin": site.add_random(f"/keep-{number}.bin", number * 20_000) for number in range(10)}
    with closing(connected(site)) as connection:
        connection.connect()
        used = connection.sock
        for is_hit in (False, True, True):
            for path, body in bodies.items():
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, answer.read() == body) == (200, True)
                assert ("; hit" in str(answer.getheader("Cache-Status"))) is is_hit
                assert connection.sock is used, "the connection stayed"
            for path in bodies:
                site.wait_stored(path)
    assert {path: site.nginx.count(path) for path in bodies} == {path: {200: 1} for path in bodies}


def test_every_kind_of_answer_leaves_the_connection_in_step(site: Site) -> None:
    body = site.add_random("/step.bin", 100_000)
    steps = [
        ("GET", "/step.bin", {}, 200, body),
        ("HEAD", "/step.bin", {}, 200, b""),
        ("GET", "/step.bin", {"Range": "bytes=5-9"}, 206, body[5:10]),
        ("GET", "/step.bin", {"Range": "bytes=100000-"}, 416, None),
        ("GET", "/step.bin", {"If-None-Match": "*"}, 304, b""),
        ("GET", "/step-not-there", {}, 404, None),
        ("HEAD", "/step-not-there", {}, 404, b""),
        ("POST", "/step.bin", {}, 405, None),
        ("GET", "/step.bin", {}, 200, body),
    ]
    with closing(connected(site)) as connection:
        connection.connect()
        used = connection.sock
        for method, path, fields, status, expected in steps * 2:
            connection.request(method, path, headers=fields)
            answer = connection.getresponse()
            received = answer.read()
            assert answer.status == status, (method, path, fields)
            assert expected is None or received == expected
            assert connection.sock is used


def test_many_connections_at_a_time(site: Site) -> None:
    bodies = {f"/crowd-{number}.bin": site.add_random(f"/crowd-{number}.bin", 70_000) for number in range(6)}
    together = threading.Barrier(12)

    def context(number: int) -> bool:
        paths = list(bodies)[number % 6 :] + list(bodies)[: number % 6]
        with closing(connected(site)) as connection:
            together.wait(WATCHDOG_S)
            return all(_body(connection, path) == bodies[path] for path in paths * 3)

    with ThreadPoolExecutor(12) as crew:
        assert all(crew.map(context, range(12)))
    assert {path: site.nginx.count(path) for path in bodies} == {path: {200: 1} for path in bodies}


def _body(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def test_a_body_in_chunks(site: Site) -> None:
    """http.client sends what it is given piece by piece in chunks; nginx answers 405 and reads to their end."""
    with closing(connected(site)) as connection:
        for _ in range(2):
            connection.request("POST", "/index.html", body=iter([body_of("piece", 9000)] * 20))
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (404, 405)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "as a proxy"])
def test_urllib(site: Site, proxied: bool) -> None:
    path = f"/urllib-{proxied}.bin"
    body = site.add_random(path, 300_000)
    base = site.nginx.url if proxied else site.url
    for is_hit in (False, True):
        with opener(site, proxied=proxied).open(f"{base}{path}", timeout=WATCHDOG_S) as answer:
            assert answer.read() == body
            assert ("; hit" in answer.headers["Cache-Status"]) is is_hit
        site.wait_stored(f"{base}{path}")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        opener(site, proxied=proxied).open(f"{base}/urllib-not-there", timeout=WATCHDOG_S)
    assert site.nginx.count(path) == {200: 1}
