"""RFC 9213: CDN-Cache-Control, where the operator has enabled it."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, IN_AN_HOUR, action_after, kept, refusal
from tests.support.http_values import fields
from webproxy.caching.decision import Action
from webproxy.caching.options import CachingOptions

ENABLED = CachingOptions(targeted_control=True)


def lifetime(*lines: bytes, options: CachingOptions = ENABLED) -> int:
    return kept(DATE, *lines, options=options).lifetime_s


@pytest.mark.parametrize(
    ("lines", "lifetime_s"),
    [
        pytest.param((b"CDN-Cache-Control: max-age=60",), 60, id="alone"),
        pytest.param((b"CDN-Cache-Control: max-age=60", b"Cache-Control: max-age=1"), 60, id="longer"),
        pytest.param((b"CDN-Cache-Control: max-age=1", b"Cache-Control: max-age=60"), 1, id="shorter"),
        pytest.param((b"CDN-Cache-Control: max-age=60", b"Cache-Control: s-maxage=1"), 60, id="before s-maxage"),
        pytest.param((b"CDN-Cache-Control: max-age=60", b"Cache-Control: no-cache"), 60, id="before no-cache"),
        pytest.param((b"CDN-Cache-Control: max-age=60", b"Expires: 0"), 60, id="before Expires"),
        pytest.param((b"CDN-Cache-Control: max-age=0", b"Expires: " + IN_AN_HOUR), 0, id="max-age=0 before Expires"),
        pytest.param((b"CDN-Cache-Control: public", b"Expires: " + IN_AN_HOUR), 0, id="Expires is out of force"),
        pytest.param((b"CDN-Cache-Control: public", b"Cache-Control: max-age=9"), 0, id="so is Cache-Control"),
        pytest.param((b"CDN-Cache-Control: max-age=99999999999",), 2**31, id="clipped"),
        pytest.param((b"CDN-Cache-Control: max-age=30, max-age=60",), 60, id="the last one counts here"),
        pytest.param((b"CDN-Cache-Control: foobar, max-age=60;x=1",), 60, id="unknown member, parameter"),
        pytest.param((b"CDN-Cache-Control: max-age=60, no-cache",), 0, id="no-cache"),
    ],
)
def test_it_replaces_cache_control_and_expires(lines: tuple[bytes, ...], lifetime_s: int) -> None:
    assert lifetime(*lines) == lifetime_s


@pytest.mark.parametrize(
    ("targeted", "control", "reason"),
    [
        (b"no-store", b"max-age=60", b"no-store"),
        (b"private", b"max-age=60", b"private"),
        (b"max-age=60", b"no-store", b""),
        (b"max-age=60", b"private", b""),
        (b"max-age=60, no-store", b"max-age=60", b"no-store"),
    ],
)
def test_storing(targeted: bytes, control: bytes, reason: bytes) -> None:
    assert refusal(b"CDN-Cache-Control: " + targeted, b"Cache-Control: " + control, options=ENABLED) == reason


def test_storing_by_expires_alone() -> None:
    lines = (b"Expires: " + IN_AN_HOUR, DATE)
    assert refusal(*lines, status=302, options=ENABLED) == b""
    assert refusal(*lines, b"CDN-Cache-Control: x", status=302, options=ENABLED) == b"no explicit freshness"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"max-age=10000, &&&&&", id="malformed member"),
        pytest.param(b'max-age="10000"', id="wrong type"),
        pytest.param(b"max-age =10000", id="blank before ="),
        pytest.param(b"max-age= 10000", id="blank after ="),
        pytest.param(b"Max-Age=10000", id="names are lower case"),
        pytest.param(b"max-age=10000,", id="comma at the end"),
    ],
)
def test_a_field_that_cannot_be_parsed_is_not_there(value: bytes) -> None:
    assert refusal(b"CDN-Cache-Control: " + value, b"Cache-Control: no-store", options=ENABLED) == b"no-store"
    assert lifetime(b"CDN-Cache-Control: " + value, b"Cache-Control: max-age=7") == 7


def test_it_is_an_option() -> None:
    lines = (b"CDN-Cache-Control: max-age=60", b"Cache-Control: max-age=5")
    assert lifetime(*lines, options=CachingOptions()) == 5


def test_other_targets_mean_nothing_here() -> None:
    assert lifetime(b"Other-Cache-Control: max-age=60", b"Cache-Control: max-age=5") == 5


def test_it_is_passed_on() -> None:
    lines = (DATE, b"CDN-Cache-Control: max-age=60", b"Cache-Control: no-store")
    assert kept(*lines, options=ENABLED).fields == fields(*lines)


def test_its_must_revalidate_is_kept_to() -> None:
    stored = kept(b"CDN-Cache-Control: max-age=60, must-revalidate", b"Cache-Control: max-stale", ETAG, options=ENABLED)
    assert stored.never_stale
    assert action_after(61, stored, b"Cache-Control: max-stale") is Action.REVALIDATE
