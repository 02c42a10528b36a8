"""RFC 9111 section 3.5: answers to requests with Authorization are shared only when they say so."""

import pytest

from tests.rfc9111.exchanges import ETAG, IN_AN_HOUR, action_after, kept, refusal
from webproxy.caching.decision import Action
from webproxy.caching.options import CachingOptions

ASKED = (b"Authorization: Basic eDp5",)


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (b"max-age=60", b"authorization"),
        (b"no-transform", b"authorization"),
        (b"max-age=60, proxy-revalidate", b"authorization"),
        (b"max-age=60, immutable", b"authorization"),
        (b"no-cache", b"authorization"),
        (b"max-age=60, public", b""),
        (b"max-age=60, must-revalidate", b""),
        (b"s-maxage=60", b""),
        (b"s-maxage=0", b""),
        (b"public, private", b"private"),
        (b"must-revalidate, no-store", b"no-store"),
    ],
)
def test_what_says_so(control: bytes, reason: bytes) -> None:
    assert refusal(b"Cache-Control: " + control, ETAG, asked=ASKED) == reason


def test_expires_does_not() -> None:
    assert refusal(b"Expires: " + IN_AN_HOUR, ETAG, asked=ASKED) == b"authorization"


def test_a_targeted_field_does() -> None:
    """RFC 9213 section 2.2: directives mean there what they mean in Cache-Control."""
    lines = (b"Cache-Control: no-store", b"CDN-Cache-Control: max-age=60, public")
    assert refusal(*lines, asked=ASKED, options=CachingOptions(targeted_control=True)) == b""


@pytest.mark.parametrize("control", [b"max-age=60", b"max-age=60, public", b"s-maxage=60"])
def test_a_stored_response_answers_a_request_with_authorization(control: bytes) -> None:
    """The rule is about answers to such requests; what others got may go to anybody."""
    assert action_after(5, kept(b"Cache-Control: " + control), *ASKED) is Action.HIT


def test_must_revalidate_is_kept_to() -> None:
    stored = kept(b"Cache-Control: max-age=60, must-revalidate", ETAG)
    assert action_after(59, stored, *ASKED) is Action.HIT
    assert action_after(60, stored, *ASKED) is Action.REVALIDATE
