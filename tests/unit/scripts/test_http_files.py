"""http_files: which paths HTTP can ask for as they stand, and what is said of an answer."""

import hashlib

import pytest

from scripts.http_files import HttpFailed, HttpFile, fetch_over_http, plain_paths
from workloads.origin_stub import Framing, OriginStub, Route


def test_only_paths_without_anything_to_escape() -> None:
    plain = ["/", "/a", "/a/b-c_d.e~f", "/a+b@c,d=e:f;g"]
    assert plain_paths([*plain, "/café", "/a%20b", "/a?b", "/a#b", "/a b", '/a"b', "/a[b]", "relative"]) == plain


def test_what_came_and_whether_it_was_a_hit() -> None:
    """All on one connection, in the order of the paths, read as their framing says."""
    routes = {
        "/hit": Route(body=b"one", headers={"Cache-Status": "gfcache; hit; ttl=5"}),
        "/miss": Route(body=b"two" * 1_000_000, framing=Framing.CHUNKED, headers={"Cache-Status": "gfcache; fwd=miss"}),
        "/neither": Route(),
    }
    with OriginStub(routes) as origin:
        found = list(fetch_over_http(origin.port, routes))
    assert found == [
        HttpFile(path, hashlib.sha256(route.body).hexdigest(), path == "/hit") for path, route in routes.items()
    ]


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route(status=404), "404 Not Found"),
        (Route(body=b"short", truncate_at=2), "3 bytes are missing"),
        (Route(body=b"short", truncate_at=2, framing=Framing.CHUNKED), "IncompleteRead"),
    ],
)
def test_anything_else_is_a_failure(route: Route, reason: str) -> None:
    with OriginStub({"/x": route}) as origin, pytest.raises(HttpFailed, match=f"^/x: {reason}"):
        list(fetch_over_http(origin.port, ["/x"]))


def test_nobody_there() -> None:
    with OriginStub({}) as gone:
        port = gone.port
    with pytest.raises(HttpFailed, match="Connection refused"):
        list(fetch_over_http(port, ["/x"]))
