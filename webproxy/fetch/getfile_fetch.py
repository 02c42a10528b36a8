"""Getfile fetches: a missing key becomes a GET at the origin, and its response one in getfile's terms.

A getfile response begins with the length of the body, and there is no other response than this and "no such file". So
its readers are told once the body proves the head: at the first byte, or at the last one if the origin did not give a
length. Until then a failed exchange is simply repeated.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Protocol

from webproxy.caching.continuation import continuation
from webproxy.caching.stored import StoredResponse
from webproxy.fetch.job import Fetch
from webproxy.fetch.partial_response import NO_PARTIALS, PartialResponse
from webproxy.fetch.plan import Answered, Draft, FetchMeans, Plan
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.fetch.state import Event, State
from webproxy.fetch.table import FetchTable
from webproxy.origin.client import ABSENT_STATUSES
from webproxy.origin.request import OriginRequest, getfile_request
from webproxy.origin.routing import OriginTable, Target
from webproxy.store.fill import Fill
from webproxy.store.getfile_objects import PLAIN_GET, stored_for_getfile


class Places(Protocol):
    """Where answers are stored, and found again."""

    def place(self, key: bytes, stored: StoredResponse) -> bytes | None:
        """Where this one is to be stored; None: nowhere."""
        ...

    def enter(self, key: bytes, place: bytes, stored: StoredResponse) -> None:
        """It is stored there: from now on it is found."""
        ...


class GetfilePlan(Plan):
    """A 200 with a body, or nothing."""

    def __init__(self, key: bytes, target: Target, means: FetchMeans, variants: Places) -> None:
        super().__init__(key, key, target, means, PartialResponse(NO_PARTIALS, key, PLAIN_GET))
        self._variants = variants

    def start(self, spool: Spool, stopping: threading.Event) -> Fetch:
        """As table.Startable.start()."""
        return Fetch(self, spool, stopping)

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
        """As Plan.draft(). It has no key if its origin forbids storing it, or there is no store."""
        response, stored = answered.response, self._stored(answered)
        return Draft(
            response=response,
            stored=stored,
            place=None if stored is None else self._variants.place(self.key, stored),
            continuation=continuation(response.status, response.fields, response.length, answered.response_time),
        )

    def _stored(self, answered: Answered) -> StoredResponse | None:
        return stored_for_getfile(answered.response, answered.request_time, answered.response_time, self.means.options)

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """As Plan.combine(): the fields stay those of the first response."""
        return draft if self._stored(answered) is not None else replace(draft, place=None)

    def answer(self, draft: Draft, fill: Fill, written: int) -> BodyFound:  # noqa: ARG002
        """As Plan.answer()."""
        length = draft.response.length
        return BodyFound(written if length is None else length)

    def settle(self, draft: Draft) -> None:
        """As Plan.settle()."""
        if draft.stored is not None and draft.place is not None:
            self._variants.enter(self.key, draft.place, draft.stored)


class GetfileFetches:
    """Fetches for getfile clients."""

    def __init__(self, table: FetchTable, origins: OriginTable, means: FetchMeans, variants: Places) -> None:
        self._table = table
        self._origins = origins
        self._means = means
        self._variants = variants

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """A reader of the key's body: of the running fetch, or of a new one.

        `missed_at` is the time (monotonic) before the cache was asked: None if the cache was filled with the key since
        then, so that it should be asked again.

        Raises:
            Overloaded: too many fetches at once.
            OriginUnreachable: the daemon stops.
        """
        plan = GetfilePlan(key, self._origins.choose(None, key), self._means, self._variants)
        opened = self._table.open(plan, missed_at)
        return None if opened is None else opened.reader

    def has_origin(self, key: bytes) -> bool:
        """Whether there is an origin for the key."""
        return self._origins.choose(None, key).rule is not None
