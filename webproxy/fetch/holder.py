"""Holder: the process that fetches what this one is asked for as well: how it is asked, and what its end means."""

from __future__ import annotations

from time import monotonic
from typing import Final

from shmchannel.daemonkit.logs import subject
from shmchannel.objects.commands import FetchLease
from webproxy.errors import (
    FetchAborted,
    FetchBroken,
    HolderLost,
    LeaseVoid,
    NotFollowed,
    OriginError,
    OriginNotAsked,
    OriginTooLarge,
    ProxyStops,
    SpoolFailed,
)
from webproxy.fetch.follow_messages import Followed, follow_request, followed
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse

TIMEOUT_SECONDS: Final = 5.0
_SLACK_SECONDS: Final = 2.0
_OF_OURS: Final = (FetchBroken, NotFollowed, OriginTooLarge, ProxyStops, SpoolFailed)
"""What says nothing of the holder: this process would say the same of an origin."""


class Holder:
    """Of the lease of one fetch, which follows it until it is left.

    Without a word from it for some time before the head, or if it ends before, the cache is asked again. Behind the
    head its end is that of an origin: the real one has the rest.
    """

    def __init__(self, lease: FetchLease, name: str, timeout_s: float) -> None:
        """`name` is what it fetches, for messages; `timeout_s` is its longest silence before the head."""
        self._lease = lease
        self._name = name
        self._timeout_s = timeout_s
        self._heard_at = monotonic()
        self._has_answered = False
        self._said: OriginError | None = None
        """The failure that it has told of."""
        self._is_left = False

    def request(self, key: bytes) -> OriginRequest:
        """The request to it, for the fetch that is shared under this key."""
        self._heard_at = monotonic()
        return follow_request(self._lease, key, subject())

    def leave(self) -> None:
        """The origin is asked instead."""
        self._is_left = True

    def limits(self, limits: OriginLimits) -> OriginLimits:
        """The limits of the request: it is silent for as long as its origin may be, and gives up before."""
        return OriginLimits(
            connect_s=limits.connect_s,
            stall_s=limits.stall_s + _SLACK_SECONDS,
            redirects=0,
            object_bytes_max=limits.object_bytes_max,
            health=HealthSettings(failures_to_open=0),
        )

    def hears(self) -> bool:
        """An interim response has arrived; whether it is the holder's, which says that it lives."""
        self._heard_at = monotonic()
        return not self._is_left

    def overdue(self) -> OriginError | None:
        """Why it is not waited for any longer."""
        if self._has_answered or self._is_left or monotonic() - self._heard_at <= self._timeout_s:
            return None
        return LeaseVoid(f"{self._name}: nothing from the holder of its lease for {self._timeout_s:.1f} s")

    def failed(self, error: OriginError, *, is_told: bool) -> OriginError:
        """What the failure of an exchange means; `is_told`: the readers know the answer."""
        if self._is_left or error is self._said or isinstance(error, _OF_OURS):
            return error
        if isinstance(error, FetchAborted):  # behind the head nobody else can join; before it somebody may have
            return error if is_told else LeaseVoid(str(error))
        if isinstance(error, OriginNotAsked):  # a bound of this process says nothing about the lease
            return NotFollowed(f"{self._name}: {error}")
        text = f"{self._name}: nothing more from the process that fetches it: {error}"
        return HolderLost(text, retryable=True) if is_told else LeaseVoid(text)

    def answer(self, response: OriginResponse) -> Followed | None:
        """The response that it tells of, or None: the origin has no such object. Raises as followed()."""
        try:
            answer = followed(response)
        except OriginError as error:
            self._said = error
            raise
        self._has_answered = True
        return answer
