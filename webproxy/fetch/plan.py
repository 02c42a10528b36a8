"""Plan: what one kind of client asks an origin for, and what an answer means to it; HTTP and getfile have one each.

A plan turns values into values: heads of answers into events of the state machine and into drafts. Where it changes
what is stored (`confirm`, `settle`, `replace`, `end`), it waits for the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from webproxy.caching.continuation import Continuation
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.fetch.partial_response import PartialResponse
from webproxy.fetch.spool import Answer, Spool, SpooledPrefix, Validated
from webproxy.fetch.state import Event, State
from webproxy.origin.forwarded_request import ForwardedRequest
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import Target
from webproxy.store.fill import NO_FILL, Fill, FillRequest, Fills
from webproxy.store.store_token import StoreToken


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchMeans:
    """What every fetch works with."""

    asker: ForwardedRequest
    options: CachingOptions
    fills: Fills
    window_bytes: int
    """How far the body may be ahead of whoever takes it fastest."""
    continue_after_share: float
    """From this share of the body on it is fetched for the cache though its readers have left."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The head of an answer, and when it was asked for and came (seconds since the epoch)."""

    response: OriginResponse
    request_time: float
    response_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What an answer is to the readers and to the cache."""

    response: OriginResponse
    """The head that the readers are told."""
    stored: StoredResponse | None
    """What is kept of it or, where it may not be kept, what it is to those who share it."""
    place: bytes | None
    """The key that it is stored under; None when it may not be stored."""
    continuation: Continuation | None
    """What a later answer must match to be the rest of the body, if that can be told."""
    detail: bytes = b""
    """Why it is not stored."""
    completes: bool = False
    """The body begins with the partial response."""
    combined: StoredResponse | None = None
    """What the heads of later rests have made of `stored`."""


class Plan:
    """By itself it neither validates nor completes anything, and leaves nothing behind but what it stores."""

    def __init__(
        self, key: bytes, object_key: bytes, target: Target, means: FetchMeans, partial: PartialResponse
    ) -> None:
        """`key` is what the fetch is shared under, `object_key` that of the URL whose objects it changes.

        `partial` is what the cache has of the body already.
        """
        assert target.rule is not None
        self.key = key
        self.object_key = object_key
        self.name = target.url
        self.tries = target.rule.tries
        self.limits = means.asker.limits(target.rule)
        self.means = means
        self.partial = partial

    def first(self) -> Event:
        """How the fetch begins."""
        return Event.TO_FETCH

    def request(self, question: State, now: float) -> OriginRequest:
        """What the origin is asked, but for the range that RESUME adds."""
        raise NotImplementedError

    def judge(self, question: State, answered: Answered) -> Event:
        """What an answer to a question other than RESUME is.

        Raises:
            OriginBadReply: nothing that an origin may answer.
        """
        raise NotImplementedError

    def draft(self, answered: Answered) -> Draft:
        """What an answer of its own is to readers and cache."""
        raise NotImplementedError

    def completed(self, answered: Answered) -> Draft:
        """What the partial response and its rest are together."""
        raise NotImplementedError

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """What the head of the rest makes of the whole; without a place if it forbids to store it."""
        raise NotImplementedError

    def answer(self, draft: Draft, fill: Fill, written: int) -> Answer:
        """What the readers are told; `written` is the length of a body that did not say its own."""
        raise NotImplementedError

    def keep(self, draft: Draft, spool: Spool, token: StoreToken) -> Fill:
        """Begin to store the answer; if it is not stored, what it replaces must not serve any longer."""
        if draft.place is None or draft.stored is None:
            return NO_FILL
        made_of = self.partial if draft.completes else None
        request = FillRequest(draft.place, draft.stored, draft.response.length, token, made_of)
        return self.means.fills.begin(request, spool)

    def confirm(self, answered: Answered, token: StoreToken) -> Validated:
        """A 304 confirms the stored response: update it. What the readers are told."""
        raise NotImplementedError

    def settle(self, draft: Draft) -> None:
        """The answer is stored in its place: let whatever else lies under the key agree."""

    def replace(self, draft: Draft, token: StoreToken) -> None:
        """The cache did not take the answer: what it replaces must not serve any longer."""

    def keeps(self, _draft: Draft, _written: int) -> bool:
        """Whether so much of a body that broke off is kept as a partial response."""
        return False

    def end(self, draft: Draft | None, prefix: SpooledPrefix | None, *, stored: bool) -> None:
        """The fetch is over, and its readers know: keep the prefix, remove a partial response without use."""
