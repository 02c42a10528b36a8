"""HttpFetches: one origin fetch for all equal HTTP misses and validations, stored while it streams.

Who joins a fetch must be able to use its answer: what may not be stored, or varies in a field in which they differ, is
its first asker's alone, and the others are told at once, with the head, and ask for themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from time import monotonic, time

from webproxy.caching.directives import request_directives
from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.options import CachingOptions
from webproxy.caching.storability import may_store, store_response
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import conditional_request, freshen, may_keep, selects
from webproxy.caching.variants import VariantIndex, new_variant, selecting_fields, variant_key
from webproxy.errors import WebProxyError
from webproxy.fetch_job import FetchJob
from webproxy.fetch_table import FetchTable
from webproxy.fill import Fill, metadata_of
from webproxy.forwarding import Via, counted_down
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead
from webproxy.lookup import KEY_BYTES_MAX, Found
from webproxy.object_writer import ObjectWriter
from webproxy.origin import OriginClient, OriginLimits
from webproxy.origin_head import OriginResponse
from webproxy.origin_request import OriginRequest
from webproxy.origins import OriginRule, Target
from webproxy.spool import Head, Spool, SpoolReader, Validated
from webproxy.unshared import Unshared

log = logging.getLogger(__name__)

_BODY_FIELDS = (b"content-length",)
_NOT_FORWARDED = (b"host", b"expect")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched, for whom, and what is there already."""

    target: Target
    request: RequestHead
    validates: Found | None = None
    """The stored response to be validated; its body is not held open."""
    index: VariantIndex | None = None
    variant: bytes = b""
    """What tells the requests apart that cannot share an answer, as far as is known before it comes."""

    @property
    def fetch_key(self) -> bytes:
        """What the fetch runs under: NUL stands in no key, and a key begins with a slash or with `http:`."""
        return b"http " + self.target.key + b"\0" + self.variant


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """What holds for every fetch."""

    window_bytes: int
    go_on_share: float
    redirects: int
    object_bytes_max: int
    via: Via
    options: CachingOptions


class OriginAsker:
    """Makes the request to an origin of a client's: what is forwarded, where to, within which limits."""

    def __init__(self, origin: OriginClient, settings: FetchSettings) -> None:
        self.origin = origin
        self._settings = settings
        self.limits = lru_cache(maxsize=256)(self._limits)

    def _limits(self, rule: OriginRule) -> OriginLimits:
        """The limits of one origin's fetches."""
        return OriginLimits(
            connect_s=rule.connect_s,
            stall_s=rule.stall_s,
            redirects=self._settings.redirects,
            object_bytes_max=self._settings.object_bytes_max,
            tls_verify=rule.tls_verify,
            ca_file=rule.ca_file,
            add_fields=rule.add_fields,
        )

    def forwarded(self, request: RequestHead, target: Target) -> Fields:
        """A client's fields as they go on (RFC 9110 section 7.6): without this connection's, with our Via."""
        kept = end_to_end(counted_down(request)).without(_NOT_FORWARDED)
        if target.host is not None:
            kept = kept.with_line(b"Host", target.host)
        return kept.with_line(b"Via", self._settings.via.member(request.version))


class _HttpFetch(FetchJob):
    def __init__(
        self,
        order: Order,
        spool: Spool,
        stopping: threading.Event,
        asker: OriginAsker,
        settings: FetchSettings,
        writer: ObjectWriter | None,
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
        self._writer = writer
        self._request_time = 0.0
        self._response_time = 0.0
        self._stored: StoredResponse | None = None
        self._is_index_due = False
        self.when_shareable: Callable[[bytes], None] = lambda _: None
        """Told the key that this runs under when the answer may be stored."""

    @property
    def name(self) -> str:
        """The URL."""
        return self._order.target.url

    def attempt(self) -> None:
        """As FetchJob.attempt(). Every status is an answer: only what is none is tried again."""
        order = self._order
        fields = self._asker.forwarded(order.request, order.target)
        validated = self._validates.stored if self._validates is not None else None
        fields = conditional_request(fields, validated)
        request = OriginRequest(url=order.target.url, fields=fields, named_by_operator=order.target.named_by_operator)
        self._request_time = time()
        response = self._asker.origin.fetch(request, self, self._asker.limits(self._rule))
        if not self.spool.answered:
            self._take_not_modified(response)
            return
        if self.fill is not None:
            if self._length is None:
                self.fill.set_size(self.spool.written)
            self.fill.finish()
            if self.fill.stored:
                self._after_store()

    def begin(self, response: OriginResponse) -> bool:
        """The head has come: what may be stored goes to the cache while it streams, and the readers are told."""
        self._response_time = time()
        if response.status == 304 and self._validates is not None:
            return False
        head = ResponseHead(response.status, response.fields.without(_BODY_FIELDS), response.reason)
        verdict = may_store(self._asked, head, self._response_time, self._options)
        selecting = selecting_fields(response.fields, self._asked)
        self._length = response.length
        self._stored = store_response(
            head,
            request_time=self._request_time,
            response_time=self._response_time,
            options=self._options,
            selecting=selecting or (),
            body_bytes=response.length or 0,
        )
        is_stored = verdict.store and selecting is not None and len(self._order.target.key) <= KEY_BYTES_MAX
        if is_stored:
            self.when_shareable(self.key)
        if is_stored and self._writer is not None:
            self.fill = self._make_fill(self._writer, self._stored)
        self.spool.restart()
        self.spool.answer(Head(response, self._stored, is_stored, verdict.reason))
        if self.fill is not None and response.length is not None:
            self.fill.set_size(response.length)
        return True

    def interim(self, status: int, fields: Fields) -> None:
        """As Sink.interim(): for who reads, and never stored."""
        self.spool.interim(status, fields)

    @property
    def stored(self) -> bool:
        """True once the cache has what was asked for: who looked before that should look again."""
        return self._was_kept or super().stored

    def _make_fill(self, writer: ObjectWriter, stored: StoredResponse) -> Fill:
        key = self._order.target.key
        self._is_index_due = bool(stored.selecting) or stored.status != 200 or self._has_other_variants()
        if self._is_index_due:
            key = variant_key(key, new_variant(stored.selecting, None).id)
        fill = writer.make_fill(key, self.spool)
        fill.metadata_for = metadata_of(stored)
        return fill

    def _has_other_variants(self) -> bool:
        """Answers with Vary are stored: one without it must not hide them (RFC 9111 section 4.1)."""
        index = self._order.index
        return index is not None and any(variant.selecting for variant in index.variants)

    def _after_store(self) -> None:
        """Let the index and the plain object agree on what the key has now."""
        assert self._writer is not None
        assert self._stored is not None
        key = self._order.target.key
        if self._is_index_due:
            self._writer.add_variant(key, new_variant(self._stored.selecting, self._stored.fields.get(b"etag")))
        elif self._order.index is not None:
            self._writer.remove_index(key)

    def _take_not_modified(self, response: OriginResponse) -> None:
        """The origin answered 304: the stored response serves on, with what the answer says of it."""
        found = self._validates
        assert found is not None
        head = ResponseHead(response.status, response.fields, response.reason)
        if not selects(head, found.stored):  # it means something that we do not have: ask for all of it
            self._validates = None
            self.attempt()
            return
        freshened = freshen(
            self._asked,
            found.stored,
            head,
            request_time=self._request_time,
            response_time=self._response_time,
            options=self._options,
        )
        is_kept = may_keep(self._asked, freshened, self._options)
        if self._writer is not None:
            if is_kept:
                self._was_kept = self._writer.update(found.key, found.version, freshened)
            else:  # who waits for this answer still needs the body; nobody else gets it without asking
                self._writer.mark(found.key)
        self.spool.answer(Validated(found.key, freshened, found.version, is_kept))


class HttpFetches:
    """Fetches for HTTP clients."""

    def __init__(
        self, table: FetchTable, asker: OriginAsker, settings: FetchSettings, writer: ObjectWriter | None
    ) -> None:
        self._table = table
        self._asker = asker
        self._settings = settings
        self._writer = writer
        self._unshared = Unshared()

    def waited_in_vain(self, order: Order, answer: Head | Validated) -> None:
        """The answer of a fetch that was joined is of no use to this request, and will be of none to the next."""
        if isinstance(answer, Head) and not answer.is_stored and answer.response.status < 500:
            self._unshared.note(order.fetch_key, monotonic())

    def open(self, order: Order, missed_at: float, *, alone: bool = False) -> tuple[SpoolReader, bool] | None:
        """A reader of the answer, and whether somebody else's fetch is joined; None when the cache was filled since.

        `alone`: the answer of others is of no use to this request. Raises as FetchTable.open().
        """
        key = order.fetch_key
        alone = alone or request_directives(order.request.fields).no_cache or self._unshared.holds(key, monotonic())
        return self._table.open(key, lambda spool: self._make(order, spool), missed_at, join=not alone)

    def validate_in_background(self, order: Order, now: float) -> None:
        """Begin a validation that nobody waits for, unless one runs already; never raises."""
        try:
            opened = self.open(order, now)
        except WebProxyError as error:  # the next request tries again
            log.info("not validated", extra={"key": order.target.key, "reason": str(error)})
            return
        if opened is not None:
            reader, joined = opened
            if joined:
                reader.close()
            else:
                reader.stay_behind()

    def _make(self, order: Order, spool: Spool) -> FetchJob:
        fetch = _HttpFetch(order, spool, self._table.stopping, self._asker, self._settings, self._writer)
        fetch.when_shareable = self._unshared.forget
        return fetch
