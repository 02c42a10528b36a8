"""Plan: one kind of client's requests to an origin, and the meaning of the responses; HTTP and getfile have one each.

A plan turns values into values: heads of responses into events of the state machine and into drafts. Where it changes
what is stored (`confirm`, `settle`, `replace`, `end`), it waits for the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from webproxy.caching.options import CachingOptions
from webproxy.caching.partial import Continuation
from webproxy.caching.stored import StoredResponse
from webproxy.errors import OriginError
from webproxy.fetch.partial_response import PartialResponse, PartialStore
from webproxy.fetch.spool import Answer, Spool, SpooledPrefix, Validated
from webproxy.fetch.state import Event, State
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.driver import OriginDriver
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import Target
from webproxy.origin.via import Via
from webproxy.store.fill import NO_FILL, Fill, FillRequest, Fills, StoreToken
from webproxy.store.lookup import StoredHit
from webproxy.store.updates import CacheUpdater


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchMeans:
    """Shared by all fetches."""

    origin: OriginDriver
    via: Via
    options: CachingOptions
    fills: Fills
    updates: CacheUpdater
    partials: PartialStore
    window_bytes: int
    """How far the body may be ahead of its fastest reader whatever room the spools have."""
    continue_after_share: float
    """From this share of the body on it is fetched for the cache even if its readers have left."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The head of a response, and the times of its request and arrival (seconds since the epoch)."""

    response: OriginResponse
    request_time: float
    response_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The meaning of a response for the readers and the cache."""

    response: OriginResponse
    """The head passed to the readers."""
    stored: StoredResponse
    """The value to store or, if it may not be stored, its meaning for the requests that share it."""
    place: bytes | None
    """The key to store it under; None if it may not be stored."""
    continuation: Continuation | None
    """What a later response must match to be the rest of the body, if that can be determined."""
    detail: bytes = b""
    """Why it is not stored."""
    completes: bool = False
    """The body begins with the partial response."""
    combined: StoredResponse | None = None
    """The result of the heads of later rests for `stored`."""


class FailureMeaning(Protocol):
    """What the failure of an exchange means."""

    def __call__(self, error: OriginError, *, is_told: bool) -> OriginError:
        """The error itself, or another one."""


def _as_it_is(error: OriginError, *, is_told: bool) -> OriginError:  # noqa: ARG001
    return error


NO_DRAFT: Final = Draft(
    response=OriginResponse(status=0, fields=Fields()),
    stored=StoredResponse(status=0, fields=Fields(), request_time=0, response_time=0, initial_age_s=0, lifetime_s=0),
    place=None,
    continuation=None,
)
"""Before a response with a body has arrived: there is nothing to tell, to store or to resume."""


class Plan:
    """By itself it neither validates nor completes anything, and leaves nothing behind but what it stores."""

    lease = 0
    """The number of the lease of its key, whoever holds that; 0: none is known."""
    follows = False
    """Another process fetches it, which is asked instead of the origin."""

    def __init__(
        self, key: bytes, target: Target, means: FetchMeans, request: RequestHead, validates: StoredHit | None = None
    ) -> None:
        """`key` is what the fetch is shared under, the target's that of the URL whose objects it changes."""
        assert target.rule is not None
        self.key = key
        self.object_key = target.key
        self.name = target.url
        self.tries = target.rule.tries
        self.limits = target.rule.limits
        self.means = means
        self.hears: Callable[[], bool] = lambda: False
        """An interim response has arrived; whether it is for this plan alone, and not for the readers."""
        self.overdue: Callable[[], OriginError | None] = lambda: None
        """Why the exchange is to end now, if it has taken too long; called a few times a second while it lasts."""
        self.failed: FailureMeaning = _as_it_is
        """What the failure of an exchange means; `is_told`: the readers know the answer."""
        self.partial = PartialResponse(means.partials, target.key, request, validates)
        """What the cache has of the body already."""

    def first(self) -> Event:
        """How the fetch begins."""
        return Event.TO_FETCH

    def request(self, question: State, now: float) -> OriginRequest:
        """The request to the origin, without the range that RESUME adds."""
        raise NotImplementedError

    def limits_of(self, request: OriginRequest) -> OriginLimits:  # noqa: ARG002
        """The limits of a request of this plan."""
        return self.limits

    def judge(self, question: State, answered: Answered) -> Event:
        """The meaning of a response to a question other than RESUME.

        Raises:
            OriginBadReply: an invalid response.
        """
        raise NotImplementedError

    def draft(self, answered: Answered) -> Draft:
        """The draft for a complete response."""
        raise NotImplementedError

    @property
    def draft_may_wait(self) -> bool:
        """Whether draft() may have to wait for the cache."""
        return False

    def completed(self, answered: Answered) -> Draft:
        """The draft for the partial response and its rest together."""
        raise NotImplementedError

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """The draft after the head of the rest; without a key if it forbids storing."""
        raise NotImplementedError

    def answer(self, draft: Draft, fill: Fill, written: int) -> Answer:
        """The answer for the readers; `written` is the length of a body that did not give its own."""
        raise NotImplementedError

    def keep(self, draft: Draft, spool: Spool, token: StoreToken) -> Fill:
        """Begin to store the response; if it is not stored, whatever it replaces must no longer be served."""
        if draft.place is None:
            return NO_FILL
        made_of = self.partial if draft.completes else None
        request = FillRequest(draft.place, draft.stored, draft.response.length, token, made_of, self.lease)
        return self.means.fills.begin(request, spool)

    def keep_may_wait(self, draft: Draft) -> bool:  # noqa: ARG002
        """Whether keep() may have to wait for the cache."""
        return False

    def confirm(self, answered: Answered, token: StoreToken) -> Validated:
        """A 304 confirms the stored response: update it. Returns the answer for the readers."""
        raise NotImplementedError

    def settle(self, draft: Draft) -> None:
        """The response is stored: bring the other objects of the key into agreement."""

    def ends_briefly(self, draft: Draft) -> bool:  # noqa: ARG002
        """Whether no command to the cache follows that which stores the body, in settle(), replace() or end()."""
        return False

    def replace(self, draft: Draft, token: StoreToken) -> None:
        """The cache refused the response: whatever it replaces must no longer be served."""

    def keeps(self, _draft: Draft, _written: int) -> bool:
        """Whether this much of a body that broke off is stored as a partial response."""
        return False

    def end(self, draft: Draft, prefix: SpooledPrefix | None, *, stored: bool) -> None:
        """The fetch is over, and its readers know: store the prefix, remove a useless partial response."""
