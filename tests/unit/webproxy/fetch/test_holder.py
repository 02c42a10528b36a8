"""Holder: what the silence and the end of another process mean, at each moment of a fetch that follows it."""

from __future__ import annotations

import pytest

from shmchannel.objects.commands import FetchLease
from tests.support.http_values import fields, stored_response
from webproxy.errors import (
    FetchAborted,
    HolderLost,
    LeaseVoid,
    NotFollowed,
    NotShared,
    OriginBadReply,
    OriginBusy,
    OriginError,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
    ProxyStops,
)
from webproxy.fetch.follow_messages import Followed, response_lines
from webproxy.fetch.holder import Holder
from webproxy.origin.request import OriginLimits
from webproxy.origin.response_head import OriginResponse

LEASE = FetchLease(7, "gf-4711-00c0ffee")
BROKEN = OriginBadReply("5 of 9 bytes", retryable=True)
ANSWER = response_lines(Followed(stored_response(), is_shareable=True, is_common=False))
HEAD = OriginResponse(status=200, fields=fields(*ANSWER.split(b"\r\n")[:-1]), length=9)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("webproxy.fetch.holder.monotonic", clock)
    return clock


def holder() -> Holder:
    return Holder(LEASE, "http://o/x", 5.0)


def test_silence_before_the_head(clock: Clock) -> None:
    one = holder()
    one.request(b"/x")
    for _ in range(3):
        clock.now += 5.0
        assert one.overdue() is None
        assert one.hears(), "it says that it lives"
    clock.now += 5.1
    assert isinstance(one.overdue(), LeaseVoid)


def test_silence_behind_the_head_is_that_of_an_origin(clock: Clock) -> None:
    one = holder()
    one.answer(HEAD)
    clock.now += 1000.0
    assert one.overdue() is None
    limits = one.limits(OriginLimits(stall_s=30.0, object_bytes_max=5))
    assert (limits.stall_s, limits.object_bytes_max, limits.health.failures_to_open) == (32.0, 5, 0)


def test_once_it_is_left_everything_is_the_origins(clock: Clock) -> None:
    one = holder()
    one.leave()
    clock.now += 1000.0
    assert one.overdue() is None
    assert not one.hears()
    assert one.failed(BROKEN, is_told=True) is BROKEN


def test_its_end_before_the_readers_know_anything() -> None:
    assert isinstance(holder().failed(BROKEN, is_told=False), LeaseVoid)
    assert isinstance(holder().failed(FetchAborted("no reader"), is_told=False), LeaseVoid)


def test_a_bound_of_this_process_does_not_make_the_lease_void() -> None:
    meant = holder().failed(OriginBusy("64 are followed"), is_told=False)
    assert type(meant) is NotFollowed


def test_its_end_in_the_body_is_worth_a_try_at_the_origin() -> None:
    for error in (BROKEN, OriginTimeout("silent")):
        meant = holder().failed(error, is_told=True)
        assert isinstance(meant, HolderLost)
        assert meant.retryable


@pytest.mark.parametrize("error", [FetchAborted("no reader left"), ProxyStops(), OriginTooLarge("9 bytes")])
def test_what_ends_here_in_the_body_is_no_end_of_the_holder(error: OriginError) -> None:
    assert holder().failed(error, is_told=True) is error


@pytest.mark.parametrize(("status", "kind"), [(504, OriginTimeout), (502, OriginUnreachable), (409, NotShared)])
def test_what_it_tells_of_the_origin_is_no_end_of_its_own(status: int, kind: type[Exception]) -> None:
    one = holder()
    with pytest.raises(kind) as caught:
        one.answer(OriginResponse(status=status, fields=fields()))
    assert one.failed(caught.value, is_told=False) is caught.value  # type: ignore[arg-type]
