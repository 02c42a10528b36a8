"""RFC 9111 section 4.2.4: when a stale response may serve, and when it must not."""

import pytest

from tests.rfc9111.exchanges import ETAG, IN_AN_HOUR, action_after, kept
from tests.support.http_values import NOW, request
from webproxy.caching.decision import Action, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse

FORBIDDEN = [
    pytest.param(b"max-age=60, must-revalidate", id="must-revalidate"),
    pytest.param(b"max-age=60, proxy-revalidate", id="proxy-revalidate"),
    pytest.param(b"s-maxage=60", id="s-maxage"),
    pytest.param(b"max-age=60, no-cache", id="no-cache"),
]


def on_error(stored: StoredResponse, seconds: float, status: int | None, *wishes: bytes) -> bool:
    return stale_allowed_on_error(request(*wishes), stored, status, NOW + seconds)


def test_nobody_allows_it() -> None:
    assert action_after(61, kept(b"Cache-Control: max-age=60", ETAG)) is Action.REVALIDATE


@pytest.mark.parametrize("control", FORBIDDEN)
@pytest.mark.parametrize("allowance", [b"", b", stale-while-revalidate=600, stale-if-error=600"])
def test_what_forbids_it_beats_what_allows_it(control: bytes, allowance: bytes) -> None:
    stored = kept(b"Cache-Control: " + control + allowance, ETAG)
    wish = b"Cache-Control: max-stale=600, stale-if-error=600"
    assert action_after(61, stored) is Action.REVALIDATE
    assert action_after(61, stored, wish) is Action.REVALIDATE
    for status in (None, 500, 502, 503, 504):
        assert not on_error(stored, 61, status)
        assert not on_error(stored, 61, status, wish)


@pytest.mark.parametrize("control", FORBIDDEN)
def test_an_operator_cannot_allow_it_either(control: bytes) -> None:
    options = CachingOptions(stale_if_error_default_s=600, stale_if_disconnected_s=600)
    stored = kept(b"Cache-Control: " + control, ETAG, options=options)
    for status in (None, 503):
        assert not stale_allowed_on_error(request(), stored, status, NOW + 60, options)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Cache-Control: max-age=60",),
        (b"Expires: Sat, 21 Nov 2026 10:01:00 GMT",),
        (b"Cache-Control: max-age=60, public",),
    ],
)
def test_disconnected(lines: tuple[bytes, ...]) -> None:
    """Nothing forbids it, and the origin cannot be reached: for as long as the operator set, a day by default."""
    stored = kept(*lines, ETAG)
    assert on_error(stored, 61, None)
    assert on_error(stored, 60 + 86_399, None)
    assert not on_error(stored, 60 + 86_400, None)
    assert not on_error(stored, 61, 503)


def test_disconnected_but_the_client_wants_no_stored_response() -> None:
    stored = kept(b"Expires: " + IN_AN_HOUR, ETAG)
    assert not on_error(stored, 5, None, b"Cache-Control: no-cache")
    assert not on_error(stored, 5, None, b"Pragma: no-cache")


def test_a_response_that_is_still_fresh_is_no_stale_one() -> None:
    """The client asked for a younger one, which cannot be had."""
    stored = kept(b"Cache-Control: max-age=60, must-revalidate", ETAG)
    assert action_after(30, stored, b"Cache-Control: max-age=10") is Action.REVALIDATE
    assert on_error(stored, 30, 503, b"Cache-Control: max-age=10")
    assert not on_error(stored, 60, 503, b"Cache-Control: max-age=10")


@pytest.mark.parametrize(
    ("control", "action"),
    [
        (b"max-stale", Action.HIT),
        (b"max-stale=10", Action.HIT),
        (b"max-stale=9", Action.REVALIDATE),
        (b"max-stale=x", Action.REVALIDATE),
    ],
)
def test_the_client_allows_it(control: bytes, action: Action) -> None:
    stored = kept(b"Cache-Control: max-age=60", ETAG)
    assert action_after(70, stored, b"Cache-Control: " + control) is action
