"""Getfile fetches: a missing key becomes a GET at the origin, and its response one in getfile's terms.

A getfile response begins with the length of the body, and there is no other response than this and "no such file". So
its readers are told once the body proves the head: at the first byte, or at the last one if the origin did not give a
length. Until then a failed exchange is simply repeated.
"""

from __future__ import annotations

import math
from dataclasses import replace

from shmchannel.objects.commands import FetchLease
from webproxy.caching.partial import continuation
from webproxy.fetch.following import Following
from webproxy.fetch.holder import TIMEOUT_SECONDS
from webproxy.fetch.lease_book import Asking
from webproxy.fetch.plan import Answered, Draft, FetchMeans, Plan
from webproxy.fetch.spool import BodyFound, SpoolReader
from webproxy.fetch.state import Event, State
from webproxy.fetch.table import FetchTable
from webproxy.origin.hop import ABSENT_STATUSES
from webproxy.origin.request import OriginRequest, getfile_request
from webproxy.origin.routing import OriginTable, Target
from webproxy.store.fill import Fill
from webproxy.store.getfile_objects import PLAIN_GET, GetfileVariants, forbids_storing, stored_for_getfile


class GetfilePlan(Plan):
    """A 200 with a body, or nothing."""

    def __init__(self, key: bytes, target: Target, means: FetchMeans, variants: GetfileVariants) -> None:
        super().__init__(key, target._replace(key=key), means, PLAIN_GET)  # with every parameter
        self._variants = variants

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
        response, options = answered.response, self.means.options
        stored = stored_for_getfile(response, answered.request_time, answered.response_time, options)
        return Draft(
            response=response,
            stored=stored,
            place=None if forbids_storing(response, options) else self._variants.place(self.object_key, stored),
            continuation=continuation(response.status, response.fields, response.length, answered.response_time),
        )

    @property
    def draft_may_wait(self) -> bool:
        """As Plan.draft_may_wait: place() asks for the index of a key that has variants."""
        return self._variants.expects(self.object_key)

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """As Plan.combine(): the fields stay those of the first response."""
        return replace(draft, place=None) if forbids_storing(answered.response, self.means.options) else draft

    def answer(self, draft: Draft, fill: Fill, written: int) -> BodyFound:  # noqa: ARG002
        """As Plan.answer()."""
        length = draft.response.length
        return BodyFound(written if length is None else length, draft.stored)

    def settle(self, draft: Draft) -> None:
        """As Plan.settle()."""
        if draft.place is not None:
            self._variants.enter(self.object_key, draft.place, draft.stored)


class FollowGetfilePlan(Following, GetfilePlan):
    """The body is the one that another process fetches for getfile, and stores."""

    def nothing_there(self) -> Event:
        """As Following.nothing_there()."""
        return Event.NOTHING_THERE


class GetfileFetches:
    """Fetches for getfile clients."""

    def __init__(
        self,
        table: FetchTable,
        origins: OriginTable,
        means: FetchMeans,
        variants: GetfileVariants,
        holder_timeout_s: float = TIMEOUT_SECONDS,
    ) -> None:
        """`holder_timeout_s` as HttpFetches()."""
        self._holder_timeout_s = holder_timeout_s
        self._table = table
        self._origins = origins
        self._means = means
        self._variants = variants

    def asking(self, key: bytes) -> Asking | None:
        """As HttpFetches.asking()."""
        leases = self._table.leases
        return leases.asking(key) if leases.process and self.has_origin(key) else None

    def open(self, key: bytes, missed_at: float = math.inf, lease: FetchLease | None = None) -> SpoolReader | None:
        """A reader of the key's body: of the running fetch, or of a new one; `lease`: who fetches it, by the cache.

        `missed_at` is the time (monotonic) before the cache was asked: None if the cache was filled with the key since
        then, so that it should be asked again.

        Raises:
            Overloaded: too many fetches at once.
            ProxyStops: the daemon stops.
        """
        target = self.target(key)
        if lease is None or lease.holder == self._table.leases.process:
            plan = GetfilePlan(key, target, self._means, self._variants)
            plan.lease = 0 if lease is None else lease.number
        else:
            plan = FollowGetfilePlan(key, target, self._means, self._variants)
            plan.follow(lease, self._holder_timeout_s)
        opened = self._table.open(plan, missed_at)
        return None if opened is None else opened.reader

    def target(self, key: bytes) -> Target:
        """Where the key's object is."""
        return self._origins.choose(None, key)

    def has_origin(self, key: bytes) -> bool:
        """Whether there is an origin for the key."""
        return self.target(key).rule is not None
