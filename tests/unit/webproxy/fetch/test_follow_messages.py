"""What a follower and its holder say to each other, and what either makes of what it cannot understand."""

from __future__ import annotations

from base64 import b64encode

import pytest

from shmchannel.objects.commands import FetchLease
from tests.support.http_values import fields, request, stored_response
from webproxy.caching.stored_codec import MetadataError
from webproxy.errors import (
    FetchAborted,
    FetchBroken,
    LeaseVoid,
    NotFollowed,
    NotShared,
    OriginBusy,
    OriginError,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
    ProxyStops,
    SpoolFailed,
)
from webproxy.fetch.follow_messages import (
    GONE,
    HEAD_BYTES_MAX,
    NOT_SHARED,
    ORIGIN_FAILED,
    ORIGIN_SILENT,
    Asked,
    Followed,
    asked_by,
    follow_request,
    followed,
    response_lines,
    status_of_failure,
)
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.request import header_lines
from webproxy.origin.response_head import OriginResponse

LEASE = FetchLease((1 << 62) + 5, "gf-4711-00c0ffee")
STORED = stored_response(b'ETag: "a"', b"Vary: A", b"Content-Type: text/plain", selecting=((b"a", b"1"),))


@pytest.mark.parametrize("key", [b"http /x\0", b"/x", bytes(range(256)), b"k" * 4096])
def test_a_request_is_understood(key: bytes) -> None:
    sent = follow_request(LEASE, key)
    assert (sent.url, sent.holder) == (f"http://{LEASE.number}.gf-4711-00c0ffee/{LEASE.number}", "gf-4711-00c0ffee")
    assert sum(map(len, header_lines(sent.fields))) < HEAD_BYTES_MAX
    received = RequestHead(b"GET", b"/%d" % LEASE.number, (1, 1), sent.fields)
    assert asked_by(received) == Asked(LEASE.number, key)
    named = follow_request(LEASE, key, b"a-1")
    assert named.fields.get(b"x-request-id") == b"a-1"
    assert asked_by(RequestHead(b"GET", b"/%d" % LEASE.number, (1, 1), named.fields)) == asked_by(received)


@pytest.mark.parametrize(
    ("target", "key"),
    [(b"/", b"L3g="), (b"/x", b"L3g="), (b"/-1", b"L3g="), (b"/" + b"9" * 21, b"L3g="), (b"/7", b"L3g"), (b"/7", b"#"),
     (b"/7", b""), (b"/7/8", b"L3g="), (b"http://h/7", b"L3g=")],
)  # fmt: skip
def test_what_is_no_such_request(target: bytes, key: bytes) -> None:
    assert asked_by(RequestHead(b"GET", target, (1, 1), Fields(((b"GFCache-Key", key),)))) is None


def test_a_clients_request_is_none() -> None:
    assert asked_by(request()) is None
    assert asked_by(RequestHead(b"POST", b"/7", (1, 1), Fields(((b"GFCache-Key", b"L3g="),)))) is None


def said(lines: bytes, status: int = 200) -> OriginResponse:
    return OriginResponse(status=status, fields=fields(*lines.split(b"\r\n")[:-1]), length=5)


@pytest.mark.parametrize(("shareable", "common"), [(True, True), (True, False), (False, True)])
def test_a_response_is_understood(shareable: bool, common: bool) -> None:
    response = Followed(STORED, shareable, common)
    assert followed(said(response_lines(response))) == response


def test_a_head_that_does_not_fit() -> None:
    stored = stored_response(b"X: " + b"x" * 70_000)
    with pytest.raises(MetadataError):
        response_lines(Followed(stored, True, True))


@pytest.mark.parametrize(
    ("status", "error"),
    [(NOT_SHARED, NotShared), (GONE, LeaseVoid), (ORIGIN_FAILED, OriginUnreachable), (ORIGIN_SILENT, OriginTimeout),
     (400, LeaseVoid), (431, LeaseVoid), (503, LeaseVoid), (206, LeaseVoid), (200, NotFollowed)],
)  # fmt: skip
def test_what_a_refusal_means(status: int, error: type[OriginError]) -> None:
    with pytest.raises(error):
        followed(said(b"", status))


@pytest.mark.parametrize("value", [b"", b"#", b"L3g=", b64encode(b"\1\2" + bytes(54))])
def test_a_response_that_is_not_understood(value: bytes) -> None:
    """Nothing is known of the origin."""
    with pytest.raises(NotFollowed):
        followed(said(b"GFCache-Response: " + value + b"\r\n"))


@pytest.mark.parametrize(
    ("error", "status"),
    [(FetchAborted("x"), GONE), (LeaseVoid("x"), GONE), (OriginBusy("x"), GONE), (SpoolFailed("x"), GONE),
     (OriginTimeout("x"), ORIGIN_SILENT), (OriginUnreachable("x"), ORIGIN_FAILED),
     (OriginTooLarge("x"), ORIGIN_FAILED), (ProxyStops(), GONE), (FetchBroken("x"), GONE)],
)  # fmt: skip
def test_what_a_follower_is_told_of_a_failure(error: OriginError, status: int) -> None:
    """Neither a bound nor the end of this process is a failure of the origin."""
    assert status_of_failure(error) == status


def test_there_is_no_such_object() -> None:
    """In terms of getfile, which knows no other failure."""
    assert followed(said(b"", 404)) is None
