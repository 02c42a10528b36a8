"""HTTP fetches: one origin fetch for concurrent misses and validations, stored while it streams.

Requests that are collapsed into one fetch must be able to use its response. One that may not be stored, or varies in a
field in which the requests differ, is for the first of them alone. The others learn this with the head and are
forwarded themselves, and the next request for that URL does not wait (`HitForMiss`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

from shmchannel.objects.commands import FetchLease
from webproxy.caching.directives import request_directives
from webproxy.caching.partial import continuation, is_worth_keeping
from webproxy.caching.storability import (
    is_common_failure,
    is_personal,
    store_response,
    storing_refused,
    takes_the_place,
)
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import barred, conditional_request, freshen, may_keep, selects, varies_otherwise
from webproxy.caching.variants import VariantIndex, selecting_fields
from webproxy.errors import (
    NotFollowed,
    OriginBadReply,
    WebProxyError,
)
from webproxy.fetch.following import Following
from webproxy.fetch.holder import TIMEOUT_SECONDS
from webproxy.fetch.lease_book import Asking, Standing
from webproxy.fetch.partial_response import whole_response
from webproxy.fetch.plan import Answered, Draft, FetchMeans, Plan
from webproxy.fetch.spool import Head, Spool, SpooledPrefix, SpoolReader, Validated
from webproxy.fetch.state import Event, State
from webproxy.fetch.table import FetchTable, Opened
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import Target
from webproxy.origin.via import came_through, mark_of
from webproxy.store.fill import NO_FILL, Fill, StoreToken
from webproxy.store.lookup import KEY_BYTES_MAX, PART_SUFFIX, StoredHit
from webproxy.store.updates import place_of

log = logging.getLogger(__name__)

_BODY_FIELDS: Final = (b"content-length",)
HIT_FOR_MISS_MAX = 4096
HIT_FOR_MISS_SECONDS = 60.0
"""How long requests do not wait. A response that has become shareable is stored by its first request anyway."""


class HitForMiss:
    """URLs whose last response could not be shared with the requests that had waited for it.

    The next request for one of these goes to the origin at once, instead of waiting for another request's response only
    to learn that it must. Shared by all workers; losing an entry costs one wait.

    URLs are known by their hashes: a URL that is as long as a client likes costs no more than a short one, and one that
    is taken for another is fetched alone for a minute.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[int, float] = OrderedDict()

    def note(self, key: bytes, now: float) -> None:
        """A response under this key could not be shared; `now` is monotonic."""
        self._until[hash(key)] = now + HIT_FOR_MISS_SECONDS
        if len(self._until) > HIT_FOR_MISS_MAX:
            self._until.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """A response under this key can be shared."""
        self._until.pop(hash(key), None)

    def holds(self, key: bytes, now: float) -> bool:
        """Whether waiting for another request's response under this key is probably useless."""
        until = self._until.get(hash(key))
        return until is not None and now < until


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The object to fetch, for whom, and what is stored already."""

    target: Target
    request: RequestHead
    validates: StoredHit | None = None
    """The stored response to validate; its body is not kept open."""
    index: VariantIndex | None = None
    replaces: bytes = b""
    """The key of the stored response that the request selects, validated or not: the response replaces it."""
    variant: bytes = b""
    """Distinguishes requests that cannot share a response, as far as known before it arrives."""
    nothing_below: bool = False
    """The lookup has found that there is no partial response."""
    lease: FetchLease | None = None
    """Who fetches what is missing, by the cache."""

    @property
    def fetch_key(self) -> bytes:
        """The key of the running fetch: no key contains NUL, and a key begins with a slash or with `http:`.

        The validation of a partial response is useful only to a request that needs no more than it has.
        """
        key = _fetch_key(self.target, self.variant)
        return key + PART_SUFFIX if self.validates is not None and self.validates.stored.incomplete else key


def _fetch_key(target: Target, variant: bytes) -> bytes:
    return b"http " + target.key + b"\0" + variant


class HttpPlan(Plan):
    """Every status is an answer, and is told with its head."""

    def __init__(self, wanted: FetchRequest, means: FetchMeans, hit_for_miss: HitForMiss) -> None:
        # For a HEAD the whole object is fetched, for the cache.
        self._asked = wanted.request if wanted.request.method == b"GET" else replace(wanted.request, method=b"GET")
        super().__init__(wanted.fetch_key, wanted.target, means, self._asked, wanted.validates)
        self._wanted = wanted
        self._updates = means.updates
        self._hit_for_miss = hit_for_miss
        self.lease = 0 if wanted.lease is None else wanted.lease.number

    # -- questions and answers -----------------------------------------------------------------------------------
    def first(self) -> Event:
        """As Plan.first()."""
        if self._wanted.validates is not None:
            return Event.TO_VALIDATE
        return Event.TO_FETCH if self._wanted.nothing_below else Event.TO_COMPLETE

    def request(self, question: State, now: float) -> OriginRequest:
        """As Plan.request()."""
        target, validates = self._wanted.target, self._wanted.validates
        validated = validates.stored if validates is not None and question is State.VALIDATE else None
        fields = conditional_request(self.means.via.forwarded(self._wanted.request, target), validated)
        if question is State.COMPLETE:
            fields = self.partial.rest_of(fields, now)
        return OriginRequest(url=self.name, fields=fields, named_by_operator=target.named_by_operator)

    def judge(self, question: State, answered: Answered) -> Event:
        """As Plan.judge()."""
        response = answered.response
        if response.status == 304:
            return self._judge_not_modified(question, answered)
        if question is State.COMPLETE and response.status in (206, 416):
            return Event.REST if self.partial.is_continued_by(response, answered.response_time) else Event.NOT_REST
        return Event.ANSWER

    def _judge_not_modified(self, question: State, answered: Answered) -> Event:
        validates = self._wanted.validates
        if question is not State.VALIDATE or validates is None:
            raise OriginBadReply(f"{self.name}: a 304 to a request without a condition", status=304)
        stored = validates.stored
        if selects(_head_of(answered.response), stored) and not varies_otherwise(
            stored, self._freshened(stored, answered)
        ):
            return Event.CONFIRMED
        return Event.CONFIRMED_OTHER  # it confirms something we do not have, or not under its key

    def _freshened(self, stored: StoredResponse, answered: Answered) -> StoredResponse:
        """The stored response after one that confirms or continues it (sections 3.2 and 3.4)."""
        return freshen(
            self._asked,
            stored,
            _head_of(answered.response),
            request_time=answered.request_time,
            response_time=answered.response_time,
            options=self.means.options,
        )

    # -- what is told and stored ---------------------------------------------------------------------------------
    def draft(self, answered: Answered) -> Draft:
        """As Plan.draft(). The partial response becomes useless if the response states what the origin has now."""
        response, options = answered.response, self.means.options
        if takes_the_place(response.status):
            self.partial.discard()
        head = ResponseHead(response.status, response.fields.without(_BODY_FIELDS), response.reason)
        stored = store_response(
            head,
            request_time=answered.request_time,
            response_time=answered.response_time,
            options=options,
            selecting=selecting_fields(response.fields, self._asked) or (),
            body_bytes=response.length or 0,
        )
        detail = storing_refused(self._asked, head, answered.response_time, options)
        return self._draft(response, stored, detail, answered.response_time)

    def completed(self, answered: Answered) -> Draft:
        """As Plan.completed(): the head of the rest updates that of the prefix (RFC 9111 section 3.4)."""
        stored = replace(self._freshened(self.partial.stored, answered), incomplete=False)
        head = ResponseHead(stored.status, stored.fields, stored.reason)
        detail = storing_refused(self._asked, head, answered.response_time, self.means.options)
        whole = whole_response(answered.response, stored)
        return self._draft(whole, stored, detail, answered.response_time, completes=True)

    def _draft(
        self,
        response: OriginResponse,
        stored: StoredResponse,
        detail: bytes,
        now: float,
        *,
        completes: bool = False,
    ) -> Draft:
        if not detail and selecting_fields(stored.fields, self._asked) is None:
            detail = b"unreadable vary"
        if not detail and len(self.object_key) > KEY_BYTES_MAX:
            detail = b"key too long"
        return Draft(
            response=response,
            stored=stored,
            place=None if detail else place_of(self.object_key, stored, self._asked, self._wanted.index),
            continuation=continuation(response.status, response.fields, response.length, now),
            detail=detail,
            completes=completes,
        )

    def combine(self, draft: Draft, answered: Answered) -> Draft:
        """As Plan.combine()."""
        combined = self._freshened(draft.combined or draft.stored, answered)
        is_kept = may_keep(self._asked, combined, self.means.options) and not varies_otherwise(draft.stored, combined)
        return replace(draft, combined=combined, place=draft.place if is_kept else None)

    def answer(self, draft: Draft, fill: Fill, written: int) -> Head:  # noqa: ARG002
        """As Plan.answer()."""
        detail = draft.detail or fill.refusal
        return Head(
            draft.response,
            draft.stored,
            draft.place is not None,
            not detail,
            detail,
            completes=draft.completes,
            is_common=not is_personal(self._asked) and (draft.place is not None or self._is_common_failure(draft)),
        )

    def _is_common_failure(self, draft: Draft) -> bool:
        is_readable = selecting_fields(draft.stored.fields, self._asked) is not None
        return is_readable and is_common_failure(self._asked, _head_of(draft.response), self.means.options)

    def keep(self, draft: Draft, spool: Spool, token: StoreToken) -> Fill:
        """As Plan.keep()."""
        fill = super().keep(draft, spool, token)
        if draft.place is not None:
            self._hit_for_miss.forget(self.key)
        if fill is NO_FILL and takes_the_place(draft.response.status):
            self.replace(draft, token)
        return fill

    def keep_may_wait(self, draft: Draft) -> bool:
        """As Plan.keep_may_wait()."""
        return draft.place is None and bool(self._wanted.replaces)

    def replace(self, draft: Draft, token: StoreToken) -> None:
        """As Plan.replace(). The partial response may still be read."""
        key = self._wanted.replaces
        is_read = draft.completes and key == self.object_key + PART_SUFFIX
        with token.use() as granted:
            if granted and key and not is_read:
                self._updates.remove(key)

    def ends_briefly(self, draft: Draft) -> bool:
        """As Plan.ends_briefly()."""
        wanted = self._wanted
        is_alone = wanted.nothing_below and wanted.index is None and not wanted.replaces
        return is_alone and draft.place in (None, self.object_key) and draft.combined is None

    def settle(self, draft: Draft) -> None:
        """As Plan.settle()."""
        updates, stored, combined = self._updates, draft.stored, draft.combined
        if draft.place is None:
            return
        if combined is not None and combined.selecting == stored.selecting:
            updates.update_own(draft.place, stored, combined)
        updates.enter(self.object_key, draft.place, stored, self._asked, had_index=self._wanted.index is not None)

    def confirm(self, answered: Answered, token: StoreToken) -> Validated:
        """As Plan.confirm()."""
        found, updates, is_updated = self._wanted.validates, self._updates, False
        assert found is not None
        freshened = self._freshened(found.stored, answered)
        # An object invalidated in the meantime stays so: the origin was asked before that.
        with token.use() as granted:
            is_kept = granted and may_keep(self._asked, freshened, self.means.options)
            if is_kept:
                is_updated = updates.update(found.key, found.version, freshened)
            elif granted:
                # The readers of this response still need the body; nobody else gets it without validation.
                updates.update(found.key, found.version, barred(found.stored))
        return Validated(found.key, freshened, found.version, found.held_bytes, is_kept, is_updated)

    # -- a body that broke off -----------------------------------------------------------------------------------
    def keeps(self, draft: Draft, written: int) -> bool:
        """As Plan.keeps()."""
        known = draft.continuation
        if known is None or draft.place is None:
            return False
        return written > self.partial.held_bytes and is_worth_keeping(written, known.size_bytes)

    def end(self, draft: Draft, prefix: SpooledPrefix | None, *, stored: bool) -> None:
        """As Plan.end()."""
        if prefix is None:
            is_stored = stored and draft.place is not None
            self.partial.clear(is_replaced=is_stored or (draft.completes and draft.place is None))
            return
        with closing(prefix):
            size_bytes = draft.response.length or 0
            self.partial.leave_behind(prefix, draft.combined or draft.stored, size_bytes, began_with_it=draft.completes)


class FollowPlan(Following, HttpPlan):
    """The response is the one that another process fetches, which stores it; who follows reads it as it comes."""

    def nothing_there(self) -> Event:
        """As Following.nothing_there()."""
        raise NotFollowed(f"{self.name}: the holder of its lease speaks of another protocol")

    def answer(self, draft: Draft, fill: Fill, written: int) -> Head:  # noqa: ARG002
        """As Plan.answer()."""
        _, is_shareable, is_common = self._followed
        return Head(draft.response, draft.stored, is_shareable, is_stored=False, is_common=is_common)


def _head_of(response: OriginResponse) -> ResponseHead:
    return ResponseHead(response.status, response.fields, response.reason)


class HttpFetches:
    """Fetches for HTTP clients."""

    def __init__(self, table: FetchTable, means: FetchMeans, holder_timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`holder_timeout_s`: the longest silence of a process whose fetch is followed, before it has a head."""
        self._table = table
        self._means = means
        self._hit_for_miss = HitForMiss()
        self._holder_timeout_s = holder_timeout_s
        self.leases = table.leases
        self.follow: Callable[[int, bytes], SpoolReader | Standing] = table.follow
        """See FetchTable.follow()."""

    def asking(self, target: Target, request: RequestHead) -> Asking | None:
        """The cache is about to be asked; None if it is not to say who fetches: the response may be for one alone."""
        if not self.leases.process or target.rule is None or request.method != b"GET" or is_personal(request):
            return None
        key = _fetch_key(target, b"")
        directives = request_directives(request.fields)
        if directives.no_cache or directives.no_store or directives.only_if_cached:
            return None
        return None if self._hit_for_miss.holds(key, monotonic()) else self.leases.asking(key)

    def note_unshared(self, wanted: FetchRequest) -> None:
        """The response that another process fetches is for one client alone, and so will be the next one."""
        self._hit_for_miss.note(wanted.fetch_key, monotonic())

    def mark_unshareable(self, wanted: FetchRequest, answer: Head | Validated) -> None:
        """The response of a collapsed fetch is useless to this request, and so to the next one."""
        if isinstance(answer, Head) and not (answer.is_shareable or answer.is_common or answer.response.status >= 500):
            self._hit_for_miss.note(wanted.fetch_key, monotonic())

    def open(self, wanted: FetchRequest, missed_at: float, *, bypass: bool = False) -> Opened | None:
        """A reader of the response; None if the cache was filled since `missed_at`.

        `bypass`: a response to others is useless to this request. Raises as FetchTable.open().
        """
        bypass = (
            bypass
            or request_directives(wanted.request.fields).no_cache
            or self._hit_for_miss.holds(wanted.fetch_key, monotonic())
        )
        lease = wanted.lease
        if lease is not None and came_through(wanted.request.fields, mark_of(lease.holder)):
            wanted, lease = replace(wanted, lease=None), None  # the holder waits for this very request
            bypass = True
        if lease is None or bypass or lease.holder == self.leases.process:
            plan = HttpPlan(wanted, self._means, self._hit_for_miss)
        else:
            plan = FollowPlan(wanted, self._means, self._hit_for_miss)
            plan.follow(lease, self._holder_timeout_s)
        return self._table.open(plan, missed_at, collapse=not bypass)

    def validate_in_background(self, wanted: FetchRequest, now: float) -> None:
        """Start a background validation unless one is running; never raises. Not for no-store."""
        if request_directives(wanted.request.fields).no_store:
            return
        try:
            opened = self.open(wanted, now)
        except WebProxyError as error:  # the next request tries again
            log.info("background revalidation not started", extra={"key": wanted.target.key, "reason": str(error)})
            return
        if opened is None:
            return
        if opened.collapsed:
            opened.reader.close()
        else:
            opened.reader.detach()
