"""invalidation: references that are no URLs; the rules of section 4.4 are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import response
from webproxy.caching.invalidation import invalidated_paths, invalidated_targets

TARGET = b"https://[::1]:8443/x"


def test_an_origin_is_scheme_host_and_port() -> None:
    answer = response(b"Location: https://[0:0::1]:8443/y", b"Content-Location: https://[::1]/z")
    assert invalidated_targets(b"PUT", TARGET, answer) == (TARGET, b"https://[::1]:8443/y")


@pytest.mark.parametrize(
    "reference", [b"", b"http:", b"https://", b"//", b"https://[::1]:8443:1/", b"https://[::1]:0/y", b"x:/y"]
)
def test_nonsense_invalidates_the_target_only(reference: bytes) -> None:
    assert invalidated_targets(b"PUT", TARGET, response(b"Location: " + reference)) == (TARGET,)


def test_references_to_beside_a_target_whose_query_has_slashes() -> None:
    answer = response(b"Location: ?b", b"Content-Location: c")
    targets = invalidated_targets(b"PUT", b"http://a/x/y?a/b", answer)
    assert targets == (b"http://a/x/y?a/b", b"http://a/x/y?b", b"http://a/x/c")


def test_lines_of_one_name_are_looked_at_one_by_one() -> None:
    answer = response(b"Location: /y", b"Location: /z")
    assert invalidated_targets(b"PUT", b"http://a/x", answer) == (b"http://a/x", b"http://a/y", b"http://a/z")


@pytest.mark.parametrize(
    ("reference", "paths"),
    [
        (b"http://h/y", (b"/x/a", b"/y")),
        (b"https://h/y", (b"/x/a", b"/y")),
        (b"http://h:80/y?z", (b"/x/a", b"/y?z")),
        (b"//h/y", (b"/x/a", b"/y")),
        (b"y", (b"/x/a", b"/x/y")),
        (b"http://h:8080/y", (b"/x/a",)),
        (b"http://o/y", (b"/x/a",)),
        (b"ftp://h/y", (b"/x/a",)),
    ],
)
def test_what_the_client_calls_its_host(reference: bytes, paths: tuple[bytes, ...]) -> None:
    answer = response(b"Location: " + reference, status=201)
    assert invalidated_paths(b"POST", b"h", b"/x/a", answer) == paths
    assert invalidated_paths(b"GET", b"h", b"/x/a", answer) == ()


def test_a_port_that_is_the_default_of_one_scheme_only() -> None:
    answer = response(b"Location: https://h/y", status=201)
    assert invalidated_paths(b"POST", b"h:443", b"/x", answer) == (b"/x", b"/y")
