"""Keys and origins with whole daemons: which requests share an object, and who is asked for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.client import fetch, free_port
from tests.http.site import Site
from tests.support.daemons import DaemonProcess, DaemonYard
from workloads.origin_stub import OriginStub, Route

FRESH = {"Cache-Control": "max-age=600"}
PROXY_ENV = {"WEBPROXY_IGNORED_QUERY_PARAMETERS": "utm_source,fbclid"}


@pytest.mark.parametrize(
    ("first", "second", "normal"),
    [
        pytest.param("/a%2fb/{n}", "/a%2Fb/{n}", "/a%2Fb/{n}", id="case of escapes"),
        pytest.param("/x/../{n}/y", "/{n}/./y", "/{n}/y", id="dot segments"),
        pytest.param("/x/%2e%2e/{n}/y", "/{n}/y", "/{n}/y", id="escaped dots"),
        pytest.param("/{n}/\xfc", "/{n}/%FC", "/{n}/%FC", id="bytes that must be escaped"),
        pytest.param("/{n}?utm_source=1&a=b", "/{n}?a=b&fbclid=2", "/{n}?a=b", id="dropped parameters"),
        pytest.param("/{n}?utm_source=1", "/{n}", "/{n}", id="nothing left of the query"),
    ],
)
def test_one_object(site: Site, first: str, second: str, normal: str) -> None:
    unique = site.put(Route()).strip("/")
    first, second, normal = (target.format(n=unique) for target in (first, second, normal))
    site.origin.add(normal, Route(body=b"x", headers=FRESH))
    assert site.get(first).body == b"x"
    site.settle(normal)
    assert site.get(second).is_hit
    assert [request.path for request in site.origin.requests] == [normal]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("/{n}?a=1", "/{n}?a=2", id="another query"),
        pytest.param("/{n}?a=1&b=2", "/{n}?b=2&a=1", id="another order"),
        pytest.param("/{n}", "/{n}?", id="an empty query"),
        pytest.param("/{n}/a", "/{n}/A", id="case of the path"),
        pytest.param("/{n}/a%2Fb", "/{n}/a/b", id="an escaped slash"),
    ],
)
def test_two_objects(site: Site, first: str, second: str) -> None:
    unique = site.put(Route()).strip("/")
    targets = [first.format(n=unique), second.format(n=unique)]
    for target in targets:
        site.origin.add(target, Route(echo=True, headers=FRESH))
    bodies = [json.loads(site.get(target).body)["path"] for target in targets]
    assert bodies == targets


def test_the_host_is_no_part_of_the_default_origins_keys(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers=FRESH))
    for host in ("a.example", "A.EXAMPLE:80", "b.example"):
        assert site.get(path, host=host).is_hit
    assert site.count(path) == 1


def test_a_whole_url_of_this_proxy_itself(site: Site) -> None:
    path = site.fill(Route(body=b"x", headers=FRESH))
    assert site.get(f"http://127.0.0.1:{site.port}{path}", host=f"127.0.0.1:{site.port}").is_hit


def test_a_forward_proxy_is_off_by_default(site: Site) -> None:
    assert site.get("http://elsewhere.example/x", host="elsewhere.example").status == 403
    assert site.get("https://elsewhere.example/x", host="elsewhere.example").status == 403


@pytest.fixture
def others() -> Iterator[tuple[OriginStub, OriginStub]]:
    """Two more origins."""
    with OriginStub({}) as one, OriginStub({}) as two:
        yield one, two


@pytest.fixture
def chooser(site: Site, others: tuple[OriginStub, OriginStub], tmp_path: Path) -> DaemonProcess:
    """A proxy that chooses among three origins."""
    one, two = others
    settings = tmp_path / "webproxy.toml"
    settings.write_text(
        f"""
        origin_url = "{site.origin.url}"
        forward_hosts = ["127.0.0.1:{two.port}"]
        [[origin]]
        url = "{one.url}"
        path = "/lib/"
        strip_prefix = true
        headers = ["X-Added: 1"]
        [[origin]]
        url = "{two.url}/base"
        host = "*.example"
        preserve_host = true
        """
    )
    return site.daemons.yard.start_proxy("--config", str(settings))


def test_by_path_with_its_prefix_left_out(
    site: Site, others: tuple[OriginStub, OriginStub], chooser: DaemonProcess
) -> None:
    others[0].add("/p1", Route(echo=True, headers=FRESH, methods=("GET", "POST")))
    first = fetch(chooser.port, "/lib/p1")
    seen = json.loads(first.body)
    assert (seen["path"], ["X-Added", "1"] in seen["fields"]) == ("/p1", True)
    site.settle("/lib/p1")
    assert fetch(chooser.port, "/lib/p1").is_hit
    others[0].add("/p2", Route(status=201, headers={"Location": "/p1"}, methods=("POST",)))
    assert fetch(chooser.port, "/lib/p2", method="POST").status == 201
    assert not fetch(chooser.port, "/lib/p1").is_hit  # the location was that origin's


def test_by_host(site: Site, others: tuple[OriginStub, OriginStub], chooser: DaemonProcess) -> None:
    others[1].add("/base/h1", Route(echo=True, headers=FRESH))
    seen = json.loads(fetch(chooser.port, "/h1", host="A.Example").body)
    assert (seen["path"], ["Host", "a.example"] in seen["fields"]) == ("/base/h1", True)
    site.settle("http://a.example/h1")
    assert fetch(chooser.port, "/h1", host="a.example:80").is_hit
    assert not fetch(chooser.port, "/h1", host="b.example").is_hit
    assert others[1].count("/base/h1") == 2
    assert fetch(chooser.port, "/h1", host="a.example", method="PURGE").body == b"1 objects removed\n"


def test_all_others_are_the_default_origins(
    site: Site, others: tuple[OriginStub, OriginStub], chooser: DaemonProcess
) -> None:
    path = site.put(Route(body=b"default", headers=FRESH))
    assert fetch(chooser.port, path, host="example").body == b"default"
    assert not others[0].requests
    assert not others[1].requests


def test_forward_proxy_for_a_listed_host(
    site: Site, others: tuple[OriginStub, OriginStub], chooser: DaemonProcess
) -> None:
    others[1].add("/f", Route(body=b"forwarded", headers=FRESH))
    url = f"http://127.0.0.1:{others[1].port}/f"
    assert fetch(chooser.port, url).body == b"forwarded"
    site.settle(url)
    assert fetch(chooser.port, url).is_hit
    assert fetch(chooser.port, f"http://127.0.0.1:{others[0].port}/f").status == 403


def test_without_an_origin(yard: DaemonYard, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_bytes(b"a file")
    yard.start_cache(content=tmp_path / "files")
    port = yard.start_proxy().port
    reply = fetch(port, "/a.txt")
    assert (reply.status, reply.body, reply.get("content-type")) == (200, b"a file", "text/plain")
    assert fetch(port, "/b.txt").status == 404
    assert fetch(port, "/b.txt", method="HEAD").status == 404
    assert fetch(port, "/a.txt", method="POST").status == 405
    assert fetch(port, "/a.txt", "Range: bytes=2-").body == b"file"
    assert fetch(port, "/a.txt", f"If-None-Match: {reply.get('etag')}").status == 304


def test_an_origin_that_is_down(yard: DaemonYard) -> None:
    yard.start_cache()
    port = yard.start_proxy("-s", f"http://127.0.0.1:{free_port()}", env={"WEBPROXY_ORIGIN_TRIES": "1"}).port
    assert fetch(port, "/x").status == 502
