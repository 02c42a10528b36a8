"""RFC 9111 section 4.4: what becomes invalid by an answer to an unsafe method."""

from __future__ import annotations

import pytest

from tests.support.http_values import response
from webproxy.caching.invalidation import invalidated_targets

TARGET = b"http://a.example/dir/x?q=1"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"MKCOL", b"FOO", b"get"])
@pytest.mark.parametrize("status", [200, 201, 204, 303, 304])
def test_unsafe_and_unknown_methods_invalidate_their_target(method: bytes, status: int) -> None:
    assert invalidated_targets(method, TARGET, response(status=status)) == (TARGET,)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"])
def test_safe_methods_invalidate_nothing(method: bytes) -> None:
    answer = response(b"Location: /y", b"Content-Location: /z", status=201)
    assert invalidated_targets(method, TARGET, answer) == ()


@pytest.mark.parametrize("status", [100, 199, 400, 404, 412, 500, 503])
def test_errors_invalidate_nothing(status: int) -> None:
    answer = response(b"Location: /y", status=status)
    assert invalidated_targets(b"POST", TARGET, answer) == ()


@pytest.mark.parametrize("name", [b"Location", b"Content-Location"])
@pytest.mark.parametrize(
    ("reference", "url"),
    [
        pytest.param(b"http://a.example/y", b"http://a.example/y", id="absolute"),
        pytest.param(b"HTTP://A.Example:80/y#part", b"http://a.example/y", id="normal-form"),
        pytest.param(b"//a.example/y", b"http://a.example/y", id="without-scheme"),
        pytest.param(b"/y", b"http://a.example/y", id="from-the-root"),
        pytest.param(b"y?z", b"http://a.example/dir/y?z", id="beside"),
        pytest.param(b"../y", b"http://a.example/y", id="above"),
        pytest.param(b"./%2e%2e/../y", b"http://a.example/y", id="dots-that-are-escaped"),
        pytest.param(b"/\xc3\xbc", b"http://a.example/%C3%BC", id="beyond-ASCII"),
    ],
)
def test_locations_of_the_same_origin_too(name: bytes, reference: bytes, url: bytes) -> None:
    assert invalidated_targets(b"POST", TARGET, response(name + b": " + reference)) == (TARGET, url)


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(b"http://b.example/y", id="another-host"),
        pytest.param(b"//b.example/y", id="another-host-without-scheme"),
        pytest.param(b"https://a.example/y", id="another-scheme"),
        pytest.param(b"http://a.example:81/y", id="another-port"),
        pytest.param(b"http://a.example.b.example/y", id="a-longer-host"),
        pytest.param(b"http://u@a.example/y", id="user-name"),
        pytest.param(b"ftp://a.example/y", id="not-http"),
        pytest.param(b"mailto:a@a.example", id="not-even-a-path"),
        pytest.param(b"http://[::1/y", id="no-URL"),
        pytest.param(b"/y z", id="a-blank"),
        pytest.param(b"?q=1", id="the-target-itself"),
        pytest.param(b"#part", id="a-part-of-the-target"),
    ],
)
def test_other_origins_are_safe_from_it(reference: bytes) -> None:
    assert invalidated_targets(b"POST", TARGET, response(b"Location: " + reference)) == (TARGET,)


def test_both_locations_and_each_once() -> None:
    answer = response(b"Content-Location: /z", b"Location: /y", b"Location: http://a.example/z", status=201)
    assert invalidated_targets(b"PUT", TARGET, answer) == (TARGET, b"http://a.example/y", b"http://a.example/z")
