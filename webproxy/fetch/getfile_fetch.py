"""Getfile fetches: a missing key becomes a GET from the origin, and its answer becomes one in getfile's words.

A getfile response begins with the length of the body, and knows no other answers than "here it is" and "there is no
such file". So its readers are told when the body proves the head: with the first byte, or with the last one when the
origin did not say a length. Until then a failed exchange is simply repeated.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import Protocol

from webproxy.caching.continuation import continuation
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.fetch.job import Answered, Draft, Fetch, FetchMeans
from webproxy.fetch.partial_response import NO_PARTIALS, PartialResponse
from webproxy.fetch.spool import BodyFound, Spool, SpooledPrefix, SpoolReader, Validated
from webproxy.fetch.state import Event, State
from webproxy.fetch.table import FetchTable
from webproxy.origin.client import ABSENT_STATUSES, OriginLimits
from webproxy.origin.forwarded_request import ForwardedRequest
from webproxy.origin.request import OriginRequest, getfile_request
from webproxy.origin.routing import OriginRule, OriginTable, Target
from webproxy.store.fill import NO_FILL, Fill, FillRequest, Fills
from webproxy.store.getfile_objects import PLAIN_GET, stored_for_getfile
from webproxy.store.store_token import StoreToken


class Places(Protocol):
    """Where answers are stored, and found again."""

    def place(self, key: bytes, stored: StoredResponse) -> bytes | None:
        """Where this one is to be stored; None: nowhere."""
        ...

    def enter(self, key: bytes, place: bytes, stored: StoredResponse) -> None:
        """It is stored there: from now on it is found."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GetfileFetchParts:
    """What all getfile fetches of the daemon share."""

    means: FetchMeans
    asker: ForwardedRequest
    options: CachingOptions
    fills: Fills
    variants: Places | None


class GetfilePlan:
    """As Plan, for a getfile request: a 200 with a body, or nothing."""

    def __init__(self, key: bytes, target: Target, parts: GetfileFetchParts) -> None:
        assert target.rule is not None
        self.key = key
        self.object_key = key
        self.name = target.url
        self.partial = PartialResponse(NO_PARTIALS, key, PLAIN_GET)
        self._rule: OriginRule = target.rule
        self._parts = parts

    @property
    def tries(self) -> int:
        """As the origin's rule says."""
        return self._rule.tries

    @property
    def limits(self) -> OriginLimits:
        """As the origin's rule says."""
        return self._parts.asker.limits(self._rule)

    def start(self, spool: Spool, stopping: threading.Event) -> Fetch:
        """As table.Startable.start()."""
        return Fetch(self, spool, stopping, self._parts.means)

    def first(self) -> Event:
        """As Plan.first(): all of it."""
        return Event.TO_FETCH

    def request(self, question: State, now: float) -> OriginRequest:  # noqa: ARG002
        """As Plan.request()."""
        return getfile_request(self.name)

    def judge(self, question: State, answered: Answered) -> Event:  # noqa: ARG002
        """As Plan.judge()."""
        status = answered.response.status
        if status in ABSENT_STATUSES:
            return Event.NOTHING_THERE
        return Event.BODY_AHEAD if status == 200 else Event.NO_ANSWER

    def draft(self, answered: Answered) -> Draft:
        """As Plan.draft(). It has no place if its origin wants that nobody keeps it, or there is nowhere to keep it."""
        response, key, variants = answered.response, self.key, self._parts.variants
        stored = self._stored(answered)
        place: bytes | None = key
        if stored is not None and variants is not None:
            place = variants.place(key, stored)
        return Draft(
            response=response,
            stored=stored,
            place=place if stored is not None else None,
            continuation=continuation(response.status, response.fields, response.length, answered.response_time),
        )

    def _stored(self, answered: Answered) -> StoredResponse | None:
        return stored_for_getfile(answered.response, answered.request_time, answered.response_time, self._parts.options)

    def completed(self, answered: Answered) -> Draft:
        """As Plan.completed(); getfile completes nothing."""
        raise NotImplementedError

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """As Plan.combine(): the fields stay those of the first answer."""
        return draft if self._stored(answered) is not None else replace(draft, place=None)

    def answer(self, draft: Draft, fill: Fill, written: int) -> BodyFound:  # noqa: ARG002
        """As Plan.answer()."""
        length = draft.response.length
        return BodyFound(written if length is None else length)

    def keep(self, draft: Draft, spool: Spool, token: StoreToken) -> Fill:
        """As Plan.keep()."""
        if draft.place is None or draft.stored is None:
            return NO_FILL
        request = FillRequest(draft.place, draft.stored, draft.response.length, token)
        return self._parts.fills.begin(request, spool)

    def replace(self, draft: Draft, token: StoreToken) -> None:
        """As Plan.replace(): what is there serves getfile, however old."""

    def settle(self, draft: Draft) -> None:
        """As Plan.settle()."""
        variants = self._parts.variants
        if variants is not None and draft.stored is not None and draft.place is not None:
            variants.enter(self.key, draft.place, draft.stored)

    def confirm(self, answered: Answered, token: StoreToken) -> Validated:
        """As Plan.confirm(); getfile validates nothing."""
        raise NotImplementedError

    def keeps(self, draft: Draft, written: int) -> bool:  # noqa: ARG002
        """As Plan.keeps(): getfile leaves no partial responses."""
        return False

    def end(self, draft: Draft | None, prefix: SpooledPrefix | None, *, stored: bool) -> None:
        """As Plan.end()."""


class GetfileFetches:
    """What getfile clients ask of an origin."""

    def __init__(self, table: FetchTable, origins: OriginTable, parts: GetfileFetchParts) -> None:
        self._table = table
        self._origins = origins
        self._parts = parts

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """A reader of the key's body: of the fetch that runs already, or of a new one.

        `missed_at` is the moment (monotonic) before the cache was asked: None when the cache was filled with the key
        since then, so that it should be asked again.

        Raises:
            Overloaded: too many fetches at once.
            OriginUnreachable: the daemon stops.
        """
        opened = self._table.open(GetfilePlan(key, self._origins.choose(None, key), self._parts), missed_at)
        return None if opened is None else opened.reader

    def has_origin(self, key: bytes) -> bool:
        """Whether there is somebody to ask for the key."""
        return self._origins.choose(None, key).rule is not None
