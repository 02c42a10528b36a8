"""invalidation: references that are no URLs; the rules of section 4.4 are in tests/rfc9111."""

from __future__ import annotations

import pytest

from tests.support.http_values import response
from webproxy.caching.invalidation import invalidated_targets

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
