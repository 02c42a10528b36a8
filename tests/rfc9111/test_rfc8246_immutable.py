"""RFC 8246: what promises never to change is still fresh for its time only, and validated for who asks for that."""

import pytest

from tests.rfc9111.exchanges import ETAG, action_after, kept
from webproxy.caching.decision import Action

HIT, REVALIDATE = Action.HIT, Action.REVALIDATE


@pytest.mark.parametrize("control", [b"max-age=60, immutable", b"IMMUTABLE, max-age=60", b"max-age=60, immutable=1"])
def test_it_makes_nothing_fresher(control: bytes) -> None:
    stored = kept(b"Cache-Control: " + control, ETAG)
    assert action_after(59, stored) is HIT
    assert action_after(60, stored) is REVALIDATE


def test_alone_it_is_no_freshness() -> None:
    assert action_after(0, kept(b"Cache-Control: immutable", ETAG)) is REVALIDATE


def test_a_client_that_wants_validation_gets_it_also_of_what_is_immutable() -> None:
    """RFC 8246 section 2."""
    stored = kept(b"Cache-Control: max-age=60, immutable", ETAG)
    assert action_after(5, stored, b"Cache-Control: no-cache") is REVALIDATE
