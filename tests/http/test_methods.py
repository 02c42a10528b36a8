"""RFC 9110 section 9, RFC 9111 section 4.4 with whole daemons: HEAD, what passes through, and what it invalidates."""

from __future__ import annotations

import json
import os

import pytest

from tests.http.client import HttpClient, fetch, free_port
from tests.http.site import Site
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from webproxy.getfile import Status
from workloads.origin_stub import Route
from workloads.origin_stub.request import Request

FRESH = {"Cache-Control": "max-age=600"}
ALL = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW", "PROPFIND")


def test_head_from_the_cache(site: Site) -> None:
    path = site.fill(Route(body=b"12345", headers={**FRESH, "X": "y"}))
    reply = site.get(path, method="HEAD")
    assert (reply.status, reply.get("content-length"), reply.get("x"), reply.is_hit) == (200, "5", "y", True)
    assert site.count(path) == 1


def test_head_on_a_miss_asks_with_head_and_stores_nothing(site: Site) -> None:
    path = site.put(Route(body=b"12345", headers=FRESH))
    reply = site.get(path, method="HEAD")
    assert (reply.status, reply.get("content-length"), site.last(path).method) == (200, "5", "HEAD")
    assert site.get(path).body == b"12345"
    assert site.count(path) == 2


def test_a_head_that_agrees_updates_what_is_stored(site: Site) -> None:
    """RFC 9111 section 4.3.5."""
    path = site.fill(
        Route(body=b"12345", headers={**FRESH, "Age": "1000", "ETag": '"1"', "X": "old"}),
        Route(body=b"12345", headers={**FRESH, "ETag": '"1"', "X": "new"}),
    )
    assert site.get(path, method="HEAD").get("x") == "new"
    reply = site.stored(path)
    assert (reply.body, reply.get("x")) == (b"12345", "new")
    assert site.count(path) == 2


@pytest.mark.parametrize("changed", [{"ETag": '"2"'}, {"Content-Length": "6"}], ids=["etag", "length"])
def test_a_head_that_does_not_agree_makes_it_stale(site: Site, changed: dict[str, str]) -> None:
    path = site.fill(
        Route(body=b"12345", headers={**FRESH, "ETag": '"1"'}),
        Route(body=b"12345", headers={**FRESH, "ETag": '"1"', **changed}),
        Route(body=b"now", headers={**FRESH, "ETag": '"3"'}),
    )
    assert site.get(path, "Cache-Control: no-cache", method="HEAD").status == 200
    assert site.get(path).body == b"now"
    assert site.count(path) == 3


def test_a_stale_head_while_the_origin_is_out_of_order(site: Site) -> None:
    headers = {"Cache-Control": "max-age=60, stale-if-error=600", "Age": "100", "ETag": '"1"'}
    path = site.fill(Route(body=b"12345", headers=headers), Route(status=503))
    reply = site.get(path, method="HEAD")
    assert (reply.status, reply.get("content-length")) == (200, "5")
    assert site.last(path).method == "HEAD"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.parametrize("status", [200, 201, 204, 303])
def test_an_unsafe_method_invalidates(site: Site, method: str, status: int) -> None:
    def choose(request: Request) -> Route:
        return Route(body=b"x", headers=FRESH) if request.method == "GET" else Route(status=status, methods=ALL)

    path = site.fill(Route(choose=choose, methods=ALL))
    assert site.get(path, method=method).status == status
    assert site.get(path).body == b"x"
    assert site.count(path) == 3


@pytest.mark.parametrize(("method", "status"), [("POST", 400), ("POST", 500), ("OPTIONS", 200), ("PROPFIND", 207)])
def test_an_error_or_a_safe_method_does_not(site: Site, method: str, status: int) -> None:
    def choose(request: Request) -> Route:
        return Route(body=b"x", headers=FRESH) if request.method == "GET" else Route(status=status, methods=ALL)

    path = site.fill(Route(choose=choose, methods=ALL))
    assert site.get(path, method=method).status == status
    assert site.get(path).is_hit
    assert site.count(path) == 2


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "form",
    [
        "{url}{path}",
        "{path}",
        "http://h{path}",
        "https://H{path}",
        "//h:80{path}",
        "http://elsewhere.example{path}",
        "http://h:81{path}#elsewhere",
    ],
)
def test_the_resources_that_the_answer_names_go_too(site: Site, name: str, form: str) -> None:
    """Under the origin's own name, and under that by which the client asked (`h`); not on other hosts."""
    named = site.fill(Route(body=b"named", headers=FRESH))
    location = form.format(url=site.origin.url, path=named)
    path = site.put(Route(status=201, headers={name: location}, methods=ALL))
    assert site.get(path, method="POST").status == 201
    site.get(named)
    assert site.count(named) == (1 if "elsewhere" in form else 2)


def test_all_variants_are_invalidated(site: Site) -> None:
    def choose(request: Request) -> Route:
        return Route(body=request.headers.get("a", "").encode(), headers={**FRESH, "Vary": "A"}, methods=ALL)

    path = site.put(Route(choose=choose, methods=ALL))
    for value in "12":
        site.get(path, f"A: {value}")
        site.stored(path, f"A: {value}")
    site.get(path, method="DELETE")
    for value in "12":
        assert not site.get(path, f"A: {value}").is_hit


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_are_streamed_through(site: Site, method: str, chunked: bool) -> None:
    body = os.urandom(10_000_000)
    sent, field = body, f"Content-Length: {len(body)}"
    if chunked:
        pieces = [body[at : at + 70_001] for at in range(0, len(body), 70_001)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        field = "Transfer-Encoding: chunked"
    path = site.put(Route(body=b"done", methods=ALL))
    assert site.get(path, field, method=method, body=sent).body == b"done"
    request = site.last(path)
    assert (request.method, request.body == body) == (method, True)
    assert ("content-length" in request.headers) is not chunked


def test_methods_and_targets_go_on_as_they_came(site: Site) -> None:
    path = site.put(Route(echo=True, methods=ALL))
    for method in ("OPTIONS", "BREW", "DELETE"):
        seen = json.loads(site.get(f"{path}?a=b&c", method=method).body)
        assert (seen["method"], seen["path"]) == (method, f"{path}?a=b&c")


def test_a_get_with_a_body_is_the_origins_alone(site: Site) -> None:
    path = site.put(Route(body=b"1", headers=FRESH), Route(body=b"2", headers=FRESH))
    replies = [site.get(path, "Content-Length: 3", body=b"abc") for _ in range(2)]
    assert [reply.body for reply in replies] == [b"1", b"2"]
    assert site.last(path).body == b"abc"


def test_a_post_and_its_connection_goes_on(site: Site) -> None:
    path = site.put(Route(body=b"done", methods=ALL))
    with HttpClient(site.port) as client:
        for _ in range(3):
            assert client.ask(path, "Content-Length: 3", method="POST", body=b"abc").body == b"done"
            assert client.ask(path).body == b"done"
    assert site.count(path) == 6


def test_options_of_the_proxy_itself(site: Site) -> None:
    """RFC 9110 section 9.3.7; in a row of proxies the last one that may be asked answers (section 7.6.2)."""
    path = site.put(Route(echo=True, methods=ALL))
    with HttpClient(site.port) as client:
        for target, fields in (("*", ()), (path, ("Max-Forwards: 0",)), ("*", ("Max-Forwards: 5",))):
            reply = client.ask(target, *fields, method="OPTIONS")
            assert (reply.status, reply.body, "HEAD" in (reply.get("allow") or "")) == (200, b"", True)
        assert site.count(path) == 0
        for before, after in (("1", "0"), ("10", "9"), ("x", "x")):
            seen = json.loads(client.ask(path, f"Max-Forwards: {before}", method="OPTIONS").body)
            assert ["Max-Forwards", after] in seen["fields"]


def test_proxies_that_are_each_others_origins(yard: DaemonYard) -> None:
    """A request comes round once and is told so; nobody waits for himself. (One alone is refused at its start.)"""
    yard.start_cache()
    port, other = free_port(), free_port()
    yard.start_proxy("-p", str(port), "-s", f"http://127.0.0.1:{other}")
    yard.start_proxy("-p", str(other), "-s", f"http://127.0.0.1:{port}")
    for method in ("GET", "HEAD", "DELETE"):
        reply = fetch(port, "/x", method=method)
        assert (reply.status, reply.cache["fwd-status"], reply.whole) == (508, "508", True)
    assert ask(port, "/x").status is Status.ERROR


def test_two_proxies_of_one_name_may_stand_in_a_row(yard: DaemonYard, site: Site) -> None:
    path = site.put(Route(body=b"x", headers=FRESH))
    port = yard.start_proxy("--no-cache", "-s", f"http://127.0.0.1:{site.port}").port
    reply = fetch(port, path)
    assert (reply.body, reply.all("via")) == (b"x", ["1.1 gfcache", "1.1 gfcache"])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_are_not_served(site: Site, method: str) -> None:
    target = "h:80" if method == "CONNECT" else "/x"
    assert site.get(target, method=method).status in (400, 501)
