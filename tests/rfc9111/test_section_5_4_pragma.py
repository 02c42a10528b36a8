"""RFC 9111 section 5.4: Pragma, which only a request without Cache-Control can mean something by."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, action_after, decision_after, kept
from webproxy.caching.decision import Action

HIT, REVALIDATE = Action.HIT, Action.REVALIDATE
STORED = kept(b"Cache-Control: max-age=60", ETAG)


@pytest.mark.parametrize("value", [b"no-cache", b"No-Cache", b"x, no-cache"])
def test_no_cache_of_a_request(value: bytes) -> None:
    assert decision_after(5, STORED, b"Pragma: " + value)[:2] == (REVALIDATE, b"request")
    assert decision_after(65, STORED, b"Pragma: " + value)[:2] == (REVALIDATE, b"stale")


@pytest.mark.parametrize("value", [b"no-store", b"cache", b""])
def test_other_words_mean_nothing(value: bytes) -> None:
    assert action_after(5, STORED, b"Pragma: " + value) is HIT


def test_pragma_does_not_count_beside_cache_control() -> None:
    assert action_after(5, STORED, b"Pragma: no-cache", b"Cache-Control: max-age=30") is HIT


def test_pragma_in_a_response_means_nothing() -> None:
    assert action_after(5, kept(b"Cache-Control: max-age=60", b"Pragma: no-cache", ETAG)) is HIT
    assert action_after(5, kept(b"Last-Modified: " + HOUR_AGO, DATE, b"Pragma: no-cache", ETAG)) is HIT
