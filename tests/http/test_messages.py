"""RFC 9110 sections 6.5, 7.6 and 15.2, RFC 9211 and RFC 9213 with whole daemons: forwarded fields, and others."""

from __future__ import annotations

import json
import re

import pytest

from tests.http.client import HttpClient, Reply
from tests.http.site import Site, http_date
from tests.support.rawserver import RawServer
from workloads.origin_stub import Framing, Route

PROXY_ENV = {
    "WEBPROXY_TARGETED_CACHE_CONTROL": "true",
    "WEBPROXY_CACHE_STATUS_NAME": "edge",
}
FRESH = {"Cache-Control": "max-age=600"}
BODY = b"0123456789" * 30_000


OURS = re.compile(r"1\.1 edge \([0-9a-f]{16}\)").fullmatch


def names_at_origin(reply: Reply) -> dict[str, str]:
    return {name.lower(): value for name, value in json.loads(reply.body)["fields"]}


def test_fields_of_the_request(site: Site) -> None:
    path = site.put(Route(echo=True))
    reply = site.get(
        path, "X-A: b", "TE: trailers", "Keep-Alive: 5", "Proxy-Authorization: x", "Connection: X-Hop", "X-Hop: 1"
    )
    seen = names_at_origin(reply)
    assert seen["x-a"] == "b"
    assert OURS(seen["via"])
    assert not seen.keys() & {"te", "keep-alive", "proxy-authorization", "x-hop", "connection"}
    assert seen["host"] == f"127.0.0.1:{site.daemons.origin_port}"


def test_via_is_a_list(site: Site) -> None:
    path = site.put(Route(echo=True, headers={"Via": "1.0 behind"}))
    reply = site.get(path, "Via: 1.1 before")
    before, ours = (value for name, value in json.loads(reply.body)["fields"] if name == "Via")
    assert before == "1.1 before"
    assert OURS(ours)
    assert reply.all("via") == ["1.0 behind", "1.1 edge"]


def test_via_says_by_which_version_a_message_came(site: Site) -> None:
    """A hit says HTTP/1.1: the version that the origin spoke is not stored."""
    path = site.put(Route(echo=True))
    assert names_at_origin(site.get(path, version="1.0"))["via"].startswith("1.0 edge ")
    site.origin.close()
    answer = b"HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx"
    with RawServer([answer], port=site.daemons.origin_port):
        path = "/of-an-old-server"
        assert site.get(path).all("via") == ["1.0 edge"]
        assert site.stored(path).all("via") == ["1.1 edge"]


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
def test_fields_of_the_answer(site: Site, control: str) -> None:
    headers = {
        "Cache-Control": control,
        "Connection": "X-Hop, keep-alive",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Proxy-Authenticate": "Basic",
        "Upgrade": "h2c",
        "X-End": "2",
    }
    path = site.put(Route(body=b"x", headers=headers))
    first = site.get(path)
    for reply in (first, site.get(path) if control == "no-store" else site.stored(path)):
        assert (reply.get("x-end"), reply.get("via")) == ("2", "1.1 edge")
        found = {name.lower() for name, _ in reply.lines}
        assert not found & {"x-hop", "keep-alive", "proxy-authenticate", "upgrade", "transfer-encoding"}


def test_a_connection_field_cannot_drop_what_everybody_needs(site: Site) -> None:
    path = site.put(Route(body=b"x", headers={"Cache-Control": "no-store", "Connection": "cache-control, date"}))
    assert site.get(path).get("cache-control") == "no-store"


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_interim_answers_are_passed_on_and_never_stored(site: Site, method: str, control: str) -> None:
    interim = [(103, {"Link": "</a.css>; rel=preload"}), (102, {}), (103, {"Link": "</b.css>"})]
    path = site.put(Route(body=b"x", interim=interim, headers={"Cache-Control": control}, methods=("GET", "POST")))
    reply = site.get(path, method=method)
    assert [status for status, _ in reply.interims] == [103, 102, 103]
    assert reply.interims[0][1] == (("Link", "</a.css>; rel=preload"),)
    assert (reply.body, reply.get("link")) == (b"x", None)
    if method == "GET" and control != "no-store":
        assert site.stored(path).interims == ()


def test_interim_answers_are_not_for_old_clients(site: Site) -> None:
    path = site.put(Route(body=b"x", interim=[(103, {"Link": "</a>"})], headers=FRESH))
    assert site.get(path, version="1.0").interims == ()


@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
def test_trailers_do_no_harm(site: Site, control: str) -> None:
    """They may be left out (RFC 9110 section 6.5.1), and are no fields of the head."""
    trailers = {"X-Sum": "1", "Cache-Control": "no-store"}
    path = site.put(
        Route(
            body=BODY,
            framing=Framing.CHUNKED,
            trailers=trailers,
            headers={"Cache-Control": control, "Trailer": "X-Sum"},
        )
    )
    reply = site.get(path)
    assert (reply.body == BODY, reply.whole, reply.get("x-sum"), reply.get("cache-control")) == (
        True,
        True,
        None,
        control,
    )
    if control != "no-store":
        assert site.stored(path).get("x-sum") is None


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("control", ["max-age=600", "no-store"])
def test_framing_towards_new_and_old_clients(site: Site, framing: Framing, control: str) -> None:
    """Content-Length is forwarded; without one the body is chunked, or for HTTP/1.0 ended by the connection."""
    headers = {"Cache-Control": control}
    for version, coding in (("1.1", "chunked"), ("1.0", None)):
        path = site.put(Route(body=BODY, framing=framing, headers=headers))
        reply = site.get(path, version=version)
        assert (reply.body == BODY, reply.whole) == (True, True)
        if framing is Framing.LENGTH:
            assert reply.get("content-length") == str(len(BODY))
        else:
            assert (reply.get("content-length"), reply.get("transfer-encoding")) == (None, coding)
        if control != "no-store":
            assert site.stored(path).get("content-length") == str(len(BODY))


def test_an_old_client_that_keeps_its_connection(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers=FRESH))
    with HttpClient(site.port) as client:
        for _ in range(2):
            reply = client.ask(path, "Connection: keep-alive", version="1.0")
            assert (reply.body, reply.get("connection")) == (b"x", "keep-alive")


def test_cache_status_tells_a_key_that_is_not_the_target(site: Site) -> None:
    path = site.put(Route(body=b"x", headers=FRESH))
    reply = site.get("/away/.." + path)
    assert reply.all("cache-status") == [f'edge; fwd=uri-miss; fwd-status=200; stored; key="{path}"']


def test_cache_status(site: Site) -> None:
    path = site.put(Route(body=b"x", headers={**FRESH, "Cache-Status": "origin; hit"}))
    first, again = site.get(path), site.stored(path)
    assert first.all("cache-status") == ["origin; hit", "edge; fwd=uri-miss; fwd-status=200; stored"]
    assert again.all("cache-status")[0] == "origin; hit"
    assert again.all("cache-status")[1].startswith("edge; hit; ttl=")


@pytest.mark.parametrize(
    ("headers", "asked", "status"),
    [
        ({"Cache-Control": "no-store"}, (), "edge; fwd=uri-miss; fwd-status=200; detail=no-store"),
        ({**FRESH, "Vary": "a b"}, (), 'edge; fwd=uri-miss; fwd-status=200; detail="unreadable vary"'),
        (FRESH, ("Cache-Control: no-store",), "edge; fwd=uri-miss; fwd-status=200"),
        (FRESH, ("Content-Length: 1",), "edge; fwd=bypass; fwd-status=200"),
    ],
)
def test_cache_status_says_why(site: Site, headers: dict[str, str], asked: tuple[str, ...], status: str) -> None:
    path = site.put(Route(body=b"x", headers=headers))
    assert site.get(path, *asked, body=b"x" * ("Content-Length: 1" in asked)).get("cache-status") == status


def test_cache_status_of_answers_of_our_own_about_what_is_stored(site: Site) -> None:
    path = site.fill(Route(body=b"0123456789", headers=FRESH))
    reply = site.get(path, "Range: bytes=10-")
    assert (reply.status, reply.is_hit, int(reply.cache["ttl"]) > 0) == (416, True, True)
    reply = site.get(site.put(Route(body=b"0123456789", headers=FRESH)), "Range: bytes=10-")
    assert (reply.status, reply.get("cache-status")) == (416, "edge; fwd=uri-miss; fwd-status=200; stored")
    stale = site.fill(Route(body=b"x", headers={"Cache-Control": "max-age=1", "Age": "9", "ETag": '"1"'}))
    for path, lacking in ((site.put(Route()), "uri-miss"), (stale, "stale")):
        reply = site.get(path, "Cache-Control: only-if-cached")
        assert (reply.status, reply.get("cache-status")) == (504, f"edge; detail={lacking}")
    assert site.get(site.put(Route()), method="TRACE").get("cache-status") is None


def test_cache_status_of_others(site: Site) -> None:
    path = site.put(Route(body=b"x", headers={**FRESH, "Vary": "A"}, methods=("GET", "POST")))
    site.get(path, "A: 1")
    site.settle(path)
    assert site.get(path, "A: 2").cache["fwd"] == "vary-miss"
    assert site.get(path, method="POST").cache["fwd"] == "method"
    path = site.fill(Route(body=b"x", headers={**FRESH, "ETag": '"1"'}))
    assert site.get(path, "Cache-Control: no-cache").cache["fwd"] == "request"


@pytest.mark.parametrize(
    ("headers", "hit"),
    [
        pytest.param({"CDN-Cache-Control": "max-age=600", "Cache-Control": "no-store"}, True, id="in its place"),
        pytest.param({"CDN-Cache-Control": "no-store", "Cache-Control": "max-age=600"}, False, id="stricter"),
        pytest.param({"CDN-Cache-Control": "max-age=600", "Expires": http_date(-10)}, True, id="before Expires"),
        pytest.param({"CDN-Cache-Control": "max-age", "Cache-Control": "max-age=600"}, True, id="malformed"),
    ],
)
def test_targeted_cache_control(site: Site, headers: dict[str, str], hit: bool) -> None:
    path = site.put(Route(body=b"x", headers=headers))
    first = site.get(path)
    assert first.get("cdn-cache-control") == headers["CDN-Cache-Control"]
    if hit:
        site.stored(path)
    else:
        site.get(path)
    assert site.count(path) == (1 if hit else 2)
