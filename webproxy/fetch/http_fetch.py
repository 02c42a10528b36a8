"""HttpFetches: one origin fetch for all equal HTTP misses and validations, stored while it streams.

Who joins a fetch must be able to use its answer: what may not be stored, or varies in a field in which they differ, is
its first asker's alone, and the others are told at once, with the head, and ask for themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, time

from webproxy.caching.directives import request_directives
from webproxy.caching.partial import is_worth_keeping
from webproxy.caching.storability import Storability, may_store, store_response, takes_the_place
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import barred, conditional_request, freshen, may_keep, selects, varies_otherwise
from webproxy.caching.variants import VariantIndex, has_others, new_variant, selecting_fields, variant_key
from webproxy.errors import FetchAborted, OriginBadReply, OriginError, OriginUnreachable, WebProxyError
from webproxy.fetch.hit_for_miss import HitForMiss
from webproxy.fetch.job import FetchJob
from webproxy.fetch.partial_response import PartialResponse, whole_response
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.spool import Head, Spool, SpooledPrefix, SpoolReader, Validated
from webproxy.fetch.table import FetchTable
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.origin.forwarded_request import FetchSettings, ForwardedRequest
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import Target
from webproxy.store.fill import Fill
from webproxy.store.lookup import KEY_BYTES_MAX, PART_SUFFIX, StoredHit
from webproxy.store.updates import CacheUpdater

log = logging.getLogger(__name__)

_BODY_FIELDS = (b"content-length",)
_NO_CACHE = b"no cache connected"


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What is to be fetched, for whom, and what is there already."""

    target: Target
    request: RequestHead
    validates: StoredHit | None = None
    """The stored response to be validated; its body is not held open."""
    index: VariantIndex | None = None
    replaces: bytes = b""
    """The key of the stored response that the request selects, validated or not: what the answer takes the place of."""
    variant: bytes = b""
    """What tells the requests apart that cannot share an answer, as far as is known before it comes."""
    nothing_below: bool = False
    """The look-up has said that there is no incomplete response."""

    @property
    def fetch_key(self) -> bytes:
        """What the fetch runs under: NUL stands in no key, and a key begins with a slash or with `http:`.

        The validation of an incomplete response is of use only to who wants no more than is there of it.
        """
        key = b"http " + self.target.key + b"\0" + self.variant
        return key + PART_SUFFIX if self.validates is not None and self.validates.stored.incomplete else key


class _HttpFetch(FetchJob):
    def __init__(
        self,
        order: FetchRequest,
        spool: Spool,
        stopping: threading.Event,
        asker: ForwardedRequest,
        settings: FetchSettings,
        updates: CacheUpdater,
        parts: PartialStore,
    ) -> None:
        assert order.target.rule is not None
        super().__init__(
            order.fetch_key,
            spool,
            stopping,
            tries=order.target.rule.tries,
            window_bytes=settings.window_bytes,
            go_on_share=settings.go_on_share,
        )
        self._order = order
        # What a HEAD asks about is fetched whole, for the cache.
        self._asked = order.request if order.request.method == b"GET" else replace(order.request, method=b"GET")
        self._validates = order.validates
        self._was_kept = False
        self._rule = order.target.rule
        self._asker = asker
        self._options = settings.options
        self._updates = updates
        self._request_time = 0.0
        self._response_time = 0.0
        self._stored: StoredResponse | None = None
        self._combined: StoredResponse | None = None
        """What the head of the rest has made of it, when the body was resumed."""
        self._is_index_due = False
        key = order.target.key
        self._part = PartialResponse(parts, key, self._asked, order.validates, is_absent=order.nothing_below)
        self._may_keep_part = False
        self._follows = True
        """What the origin sends follows what is spooled."""
        self.when_shareable: Callable[[bytes], None] = lambda _: None
        """Told the key that this runs under when the answer may be stored."""

    @property
    def object_key(self) -> bytes:
        """As FetchJob.object_key: whatever variant of it this is."""
        return self._order.target.key

    @property
    def name(self) -> str:
        """The URL."""
        return self._order.target.url

    def attempt(self) -> None:
        """As FetchJob.attempt(). Every status is an answer: only what is none is tried again."""
        order = self._order
        fields = self._asker.forwarded(order.request, order.target)
        self._request_time = time()
        if self.spool.answered:
            fields = self.rest_of(conditional_request(fields, None))
        elif self._validates is not None:
            fields = conditional_request(fields, self._validates.stored)
        else:
            fields = self._part.rest_of(conditional_request(fields, None), self._request_time)
        request = OriginRequest(url=order.target.url, fields=fields, named_by_operator=order.target.named_by_operator)
        response = self._asker.origin.fetch(request, self, self._asker.limits(self._rule))
        if not self.spool.answered:
            if self._part.is_asked_for:  # but something else came: ask for all of it
                self._part.forget()
                self.attempt()
            else:
                self._take_not_modified(response)
            return
        if not self._follows:
            if not self.can_go_on:
                raise OriginUnreachable(f"{self.name}: its beginning has left the cache while it was read")
            self.attempt()
            return
        self.check_whole()
        if self.fill is not None:
            if self._length is None:
                self.fill.set_size(self.spool.written)
            self.fill.finish()
            if self.fill.stored:
                self._after_store()
            else:
                self._remove_replaced()

    def begin(self, response: OriginResponse) -> bool:
        """The head has come: what may be stored goes to the cache while it streams, and the readers are told."""
        self._response_time = time()
        self._follows = True
        if self.spool.answered:
            self.begin_rest(response)
            self._combine(response)
            return True
        if response.status == 304:
            if self._validates is None:
                raise OriginBadReply(f"{self.name}: a 304 to a request without a condition", status=304)
            return False
        if self._part.is_asked_for and response.status in (206, 416):
            self._follows = self._begin_completion(response)
            return self._follows
        self._part.is_replaced_by(response)
        head = ResponseHead(response.status, response.fields.without(_BODY_FIELDS), response.reason)
        selecting = selecting_fields(response.fields, self._asked)
        stored = store_response(
            head,
            request_time=self._request_time,
            response_time=self._response_time,
            options=self._options,
            selecting=selecting or (),
            body_bytes=response.length or 0,
        )
        self.spool.restart()
        self._tell(response, stored, may_store(self._asked, head, self._response_time, self._options))
        return True

    def _tell(self, response: OriginResponse, stored: StoredResponse, verdict: Storability) -> None:
        """Tell the readers what comes, and begin to store it when it may be stored."""
        self._length, self._stored = response.length, stored
        detail = verdict.reason
        if not detail and selecting_fields(stored.fields, self._asked) is None:
            detail = b"unreadable vary"
        if not detail and len(self._order.target.key) > KEY_BYTES_MAX:
            detail = b"key too long"
        self._may_keep_part = is_shareable = not detail
        if is_shareable:
            self.when_shareable(self.key)
            detail = self._begin_fill(stored)
        if self.fill is None and takes_the_place(stored.status):
            self._remove_replaced()
        self.note_head(response)
        completes = self._part.is_asked_for
        self.spool.answer(Head(response, stored, is_shareable, not detail, detail, completes=completes))
        if self.fill is not None and response.length is not None:
            self.fill.set_size(response.length)

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim(): for who reads, and never stored."""
        self.spool.interim(status, fields)

    @property
    def stored(self) -> bool:
        """True once the cache has what was asked for: who looked before that should look again."""
        return self._was_kept or super().stored

    # -- a part that is stored -----------------------------------------------------------------------------------
    def _begin_completion(self, response: OriginResponse) -> bool:
        """Combine the stored part with its rest, whose head has come; False when this does not follow what is spooled.

        It is not the rest, or the part left the cache: before it was read, or while, when readers know of it already.
        """
        part, now = self._part, self._response_time
        beginning = part.is_continued_by(response, now)
        if beginning is None:
            return False
        self._length = beginning.body_bytes
        self.spool.restart()
        if not part.copy(0, self.spool.write) or not part.is_as_found():
            return False
        stored = replace(self._freshened(beginning, response), incomplete=False)
        head = ResponseHead(stored.status, stored.fields, stored.reason)
        verdict = may_store(self._asked, head, now, self._options)
        if not verdict.store:
            part.drop()
        self._tell(whole_response(response, stored), stored, verdict)
        if self.fill is not None:
            self.fill.confirm = part.is_as_found
        self.keep_pace()
        while self.spool.written < part.held_bytes:
            if self.idle():
                raise FetchAborted(f"{self.name}: nobody waits for it any more")
            if not part.copy(self.spool.written, self.spool.write):
                return False
            self.keep_pace()
        return True

    def end(self, error: OriginError | None) -> None:
        """As FetchJob.end(); then what has come of the body is kept, when it can be completed later."""
        prefix = self._prefix_to_keep() if error is not None else None
        super().end(error)
        stored = self._combined or self._stored
        if prefix is None:
            self._part.clear(is_complete=super().stored)
            return
        assert stored is not None
        assert self._length is not None
        with prefix:
            self._part.leave_behind(prefix, stored, self._length)

    def _prefix_to_keep(self) -> SpooledPrefix | None:
        known, written = self._known, self.spool.written
        if known is None or not self._may_keep_part or self.token.withdrawn or self._stopping.is_set():
            return None
        if written <= self._part.held_bytes or not is_worth_keeping(written, known.size_bytes):
            return None
        try:
            return self.spool.prefix()
        except OSError as error:
            log.info("partial response not stored", extra={"key": self._order.target.key, "reason": str(error)})
            return None

    def _freshened(self, stored: StoredResponse, response: OriginResponse) -> StoredResponse:
        """What an answer makes of the response that it confirms or continues (sections 3.2 and 3.4)."""
        return freshen(
            self._asked,
            stored,
            ResponseHead(response.status, response.fields, response.reason),
            request_time=self._request_time,
            response_time=self._response_time,
            options=self._options,
        )

    # -- what is stored ------------------------------------------------------------------------------------------
    def _combine(self, response: OriginResponse) -> None:
        """The head of the rest updates that of the beginning (RFC 9111 section 3.4), or forbids to store it there."""
        assert self._stored is not None
        self._combined = self._freshened(self._combined or self._stored, response)
        kept = may_keep(self._asked, self._combined, self._options)
        if not kept or varies_otherwise(self._stored, self._combined):
            self._may_keep_part = False
            self._part.drop()
            if self.fill is not None:
                self.fill.cancel()

    def _begin_fill(self, stored: StoredResponse) -> bytes:
        """Begin to store what comes; returns why it is not stored, going by what is known now, for Cache-Status."""
        if not self._updates.keeps:
            return _NO_CACHE
        self.fill = self._make_fill(stored)
        if self.fill.given_up:
            return b"fields too long"
        return b"" if self._updates.connected else _NO_CACHE

    def _make_fill(self, stored: StoredResponse) -> Fill:
        key = self._order.target.key
        self._is_index_due = bool(stored.selecting) or stored.status != 200
        self._is_index_due = self._is_index_due or has_others(self._order.index, self._asked)
        if self._is_index_due:
            key = variant_key(key, new_variant(stored.selecting, None).id)
        fill = self._updates.make_fill(key, self.spool)
        fill.describe(stored)
        fill.token = self.token
        return fill

    def _after_store(self) -> None:
        """Let the index and the plain object agree on what the key has now."""
        if self.token.withdrawn:  # it was purged meanwhile
            return
        assert self._stored is not None
        key = self._order.target.key
        combined = self._combined
        if self.fill is not None and combined is not None and combined.selecting == self._stored.selecting:
            self._updates.update_own(self.fill.key, self._stored, combined)
        if self._is_index_due:
            variant = new_variant(self._stored.selecting, self._stored.fields.get(b"etag"))
            self._updates.add_variant(key, variant, self._asked)
        elif self._order.index is not None:
            self._updates.remove_index(key)

    def _remove_replaced(self) -> None:
        """The origin has something else, which is not stored: the old must not serve on. A part may still be read."""
        key = self._order.replaces
        is_continued = self._part.is_asked_for and key == self._order.target.key + PART_SUFFIX
        with self.token.use() as granted:
            if granted and key and not is_continued:
                self._updates.remove(key)

    def _take_not_modified(self, response: OriginResponse) -> None:
        """The origin answered 304: the stored response serves on, with what the answer says of it."""
        found = self._validates
        assert found is not None
        head = ResponseHead(response.status, response.fields, response.reason)
        freshened = self._freshened(found.stored, response)
        if not selects(head, found.stored) or varies_otherwise(found.stored, freshened):
            self._validates = None  # it means something that we do not have, or not in its place: ask for all of it
            self.attempt()
            return
        with self.token.use() as granted:  # what was marked meanwhile stays so: the origin was asked before that
            is_kept = granted and may_keep(self._asked, freshened, self._options)
            if is_kept:
                self._was_kept = self._updates.update(found.key, found.version, freshened)
            elif granted:
                # Who waits for this answer still needs the body; nobody else gets it without asking.
                self._updates.update(found.key, found.version, barred(found.stored))
        self.spool.answer(Validated(found.key, freshened, found.version, found.held_bytes, is_kept, self._was_kept))


class HttpFetches:
    """Fetches for HTTP clients."""

    def __init__(
        self,
        table: FetchTable,
        asker: ForwardedRequest,
        settings: FetchSettings,
        updates: CacheUpdater,
        parts: PartialStore,
    ) -> None:
        self._table = table
        self._asker = asker
        self._settings = settings
        self._updates = updates
        self._parts = parts
        self._unshared = HitForMiss()

    def mark_unshareable(self, order: FetchRequest, answer: Head | Validated) -> None:
        """The answer of a fetch that was joined is of no use to this request, and will be of none to the next."""
        if isinstance(answer, Head) and not answer.is_shareable and answer.response.status < 500:
            self._unshared.note(order.fetch_key, monotonic())

    def open(self, order: FetchRequest, missed_at: float, *, alone: bool = False) -> tuple[SpoolReader, bool] | None:
        """A reader of the answer, and whether somebody else's fetch is joined; None when the cache was filled since.

        `alone`: the answer of others is of no use to this request. Raises as FetchTable.open().
        """
        key = order.fetch_key
        alone = alone or request_directives(order.request.fields).no_cache or self._unshared.holds(key, monotonic())
        return self._table.open(key, lambda spool: self._make(order, spool), missed_at, join=not alone)

    def validate_in_background(self, order: FetchRequest, now: float) -> None:
        """Begin a validation that nobody waits for, unless one runs already; never raises. Not for no-store."""
        if request_directives(order.request.fields).no_store:
            return
        try:
            opened = self.open(order, now)
        except WebProxyError as error:  # the next request tries again
            log.info("background revalidation not started", extra={"key": order.target.key, "reason": str(error)})
            return
        if opened is not None:
            reader, joined = opened
            if joined:
                reader.close()
            else:
                reader.detach()

    def _make(self, order: FetchRequest, spool: Spool) -> FetchJob:
        fetch = _HttpFetch(order, spool, self._table.stopping, self._asker, self._settings, self._updates, self._parts)
        fetch.when_shareable = self._unshared.forget
        return fetch
