"""The same bytes again and again, on connections that stay: answered without being read, and never out of date."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.http.client import HttpClient, Reply
from tests.http.site import Site
from tests.support.waiting import wait_until
from workloads.origin_stub import Route

FRESH = {"Cache-Control": "max-age=600"}
SIZES = {"small": 3000, "large": 300_000}


@pytest.fixture(params=sorted(SIZES))
def bodies(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    """Two that differ: of a size that lies on the hot table whole, or of one that lies there by reference."""
    return os.urandom(SIZES[request.param]), os.urandom(SIZES[request.param] + 1)


@pytest.fixture
def client(site: Site) -> Iterator[HttpClient]:
    with HttpClient(site.port) as made:
        yield made


def ask_often(client: HttpClient, path: str, body: bytes) -> Reply:
    """Often enough that the answer comes from the hot table and the request is known; the last answer."""
    for _ in range(20):
        reply = client.ask(path)
        assert (reply.status, reply.body) == (200, body)
    return reply


def test_the_age_goes_on(site: Site, client: HttpClient, bodies: tuple[bytes, bytes]) -> None:
    path = site.fill(Route(body=bodies[0], headers={**FRESH, "Age": "100"}))
    ages: list[int] = []

    def three_seconds() -> bool:
        age = ask_often(client, path, bodies[0]).age
        assert age is not None
        ages.append(age)
        return ages[-1] >= ages[0] + 3

    wait_until(three_seconds, what="an age of three seconds more")
    assert ages == sorted(ages)
    assert ages[-1] - ages[0] >= 3
    assert site.count(path) == 1


def test_it_gets_stale(site: Site, client: HttpClient, bodies: tuple[bytes, bytes]) -> None:
    old, new = (Route(body=body, headers={"Cache-Control": "max-age=2"}) for body in bodies)
    path = site.fill(old, new)

    def replaced() -> bool:
        reply = client.ask(path)
        assert reply.body == bodies[site.count(path) - 1]
        assert not reply.is_hit or (reply.age or 0) < 2
        return site.count(path) == 2

    wait_until(replaced, what="a request to the origin")


@pytest.mark.parametrize("soft", [False, True], ids=["purge", "soft purge"])
def test_a_purge_shows_at_once(site: Site, client: HttpClient, bodies: tuple[bytes, bytes], soft: bool) -> None:
    path = site.fill(*(Route(body=body, headers=FRESH) for body in bodies))
    ask_often(client, path, bodies[0])
    with HttpClient(site.port) as other:
        ask_often(other, path, bodies[0])
        assert site.get(path, *(["X-Purge: soft"] if soft else []), method="PURGE").status == 200
        assert other.ask(path).body == bodies[1]
    assert client.ask(path).body == bodies[1]
    ask_often(client, path, bodies[1])
    assert site.count(path) == 2


def test_an_unsafe_method_shows_at_once(site: Site, client: HttpClient, bodies: tuple[bytes, bytes]) -> None:
    path = site.fill(
        Route(body=bodies[0], headers=FRESH),
        Route(body=b"", status=204, methods={"POST"}),
        Route(body=bodies[1], headers=FRESH),
    )
    ask_often(client, path, bodies[0])
    assert site.get(path, method="POST").status == 204
    ask_often(client, path, bodies[1])


def test_terms_are_read(site: Site, client: HttpClient, bodies: tuple[bytes, bytes]) -> None:
    """A request that begins like a known one is another one."""
    path = site.fill(Route(body=bodies[0], headers={**FRESH, "ETag": '"1"'}))
    ask_often(client, path, bodies[0])
    assert client.ask(path, 'If-None-Match: "1"').status == 304
    assert client.ask(path, "Range: bytes=0-4").body == bodies[0][:5]
    assert client.ask(path, "Cookie: who=me").body == bodies[0]
    assert client.ask(path, "Cache-Control: no-cache").body == bodies[0]
    assert site.count(path) == 2
    assert client.ask(path, method="HEAD").status == 200
    assert client.ask(path, version="1.0").get("connection") == "close"
    assert client.ended()


def test_pipelined_and_in_pieces(site: Site, client: HttpClient, bodies: tuple[bytes, bytes]) -> None:
    path = site.fill(Route(body=bodies[0], headers=FRESH))
    ask_often(client, path, bodies[0])
    raw = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    for pieces in ([raw * 3], [raw[:9], raw[9:] + raw, raw], [raw, raw + raw[:-1], raw[-1:]]):
        for piece in pieces:
            client.send_raw(piece)
        for _ in range(3):
            reply = client.receive()
            assert (reply.body, reply.is_hit) == (bodies[0], True)
    assert site.count(path) == 1


def test_a_new_connection_for_each(site: Site, bodies: tuple[bytes, bytes]) -> None:
    """These are known too: each says that it closes, and does."""
    path = site.fill(Route(body=bodies[0], headers=FRESH))
    for _ in range(20):
        reply = site.get(path)
        assert (reply.body, reply.get("connection")) == (bodies[0], "close")
