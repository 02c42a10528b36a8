"""RFC 9111 section 5.1: the Age field, as it comes and as it is sent; what it counts for is in section 4.2.3's file."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, decision_after, kept
from tests.support.http_values import fields
from webproxy.caching.freshness import age_value
from webproxy.exchange.response_heads import STAYS, ResponseHeads

FRESH = b"Cache-Control: max-age=7200"


@pytest.mark.parametrize(
    ("lines", "age_s"),
    [
        ((), 0),
        ((b"Age: 0",), 0),
        ((b"Age: 007",), 7),
        ((b"Age: 7, 9",), 7),
        ((b"Age: 7", b"Age: 9"), 7),
        ((b"Age: x, 9",), 0),
        ((b"Age: -7",), 0),
        ((b"Age: 7s",), 0),
        ((b"Age: 7.5",), 0),
        ((b'Age: "7"',), 0),
        ((b"Age:",), 0),
        ((b"Age: 2147483648",), 2**31),
        ((b"Age: 99999999999999999999",), 2**31),
    ],
)
def test_what_is_no_number_of_seconds_is_ignored(lines: tuple[bytes, ...], age_s: int) -> None:
    """Of several values the first counts."""
    assert age_value(fields(*lines)) == age_s


@pytest.mark.parametrize("lines", [(), (b"Age: 600",), (b"Age: 600", b"Age: 700")])
def test_what_comes_from_the_cache_has_one_age(lines: tuple[bytes, ...]) -> None:
    """Its age by now, in place of what it came with."""
    stored = kept(FRESH, DATE, ETAG, *lines)
    age_s = decision_after(30, stored).age_s
    assert age_s == (630 if lines else 30)
    head = ResponseHeads(b"us").hit(stored, age_s, STAYS)
    assert [line for line in head.split(b"\r\n") if line.lower().startswith(b"age:")] == [b"Age: %d" % age_s]
