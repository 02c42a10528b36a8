"""Fetches for getfile clients: a missing key → a GET from the origin, and what its answer means in getfile's words."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from time import time

from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.errors import OriginBadReply
from webproxy.fetch.job import FetchJob
from webproxy.fetch.spool import BodyFound, BodyMissing, Spool, SpoolReader
from webproxy.fetch.table import FetchTable
from webproxy.origin.client import ABSENT_STATUSES, OriginClient, OriginLimits
from webproxy.origin.request import getfile_request
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import Fill
from webproxy.store.getfile_objects import stored_for_getfile
from webproxy.store.getfile_variants import GetfileVariants

MakeFill = Callable[[bytes, Spool], Fill]


class _GetfileFetch(FetchJob):
    """One key's fetch. The readers are answered with the first byte: until then a failed try may be repeated."""

    def __init__(
        self,
        key: bytes,
        url: str,
        spool: Spool,
        stopping: threading.Event,
        origin: OriginClient,
        limits: OriginLimits | None,
        fill: Fill | None,
        variants: GetfileVariants | None,
        options: CachingOptions,
        *,
        tries: int,
        window_bytes: int,
        go_on_share: float,
    ) -> None:
        super().__init__(key, spool, stopping, tries=tries, window_bytes=window_bytes, go_on_share=go_on_share)
        self.fill = fill
        if fill is not None:
            fill.token = self.token
        self._url = url
        self._origin = origin
        self._limits = limits
        self._variants = variants
        self._options = options
        self._stored: StoredResponse | None = None
        self._started = False
        self._request_time = 0.0
        self._response: OriginResponse | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def attempt(self) -> None:
        """As FetchJob.attempt(); a status that is no answer to a GET is a failure."""
        self._request_time = time()
        request = getfile_request(self._url)
        goes_on = self.spool.answered
        response = self._origin.fetch(replace(request, fields=self.rest_of(request.fields)), self, self._limits)
        self._finish(response if not goes_on else None)

    def begin(self, response: OriginResponse) -> bool:
        """Answer the readers as soon as the status says that there is nothing to come."""
        if self.spool.answered:
            self.begin_rest(response)
            if self.fill is not None and self._stored_for(response) is None:
                self.fill.cancel()
            return True
        if response.status in ABSENT_STATUSES:
            self.spool.answer(BodyMissing())
        self._started = False
        self._response = response
        return response.status == 200

    def write(self, data: bytes) -> None:
        """As FetchJob.write()."""
        if not self._started:
            self._start_body()
        super().write(data)

    def _start_body(self) -> None:
        assert self._response is not None
        self._started = True
        self.spool.restart()
        if self.fill is not None:
            stored = self._stored_for(self._response)
            place: bytes | None = self.key
            if stored is not None and self._variants is not None:
                place = self._variants.place(self.key, stored)
            if stored is None or place is None:  # its origin wants that nobody keeps it, or there is nowhere to keep it
                self.fill.given_up = True
            else:
                self._stored = stored
                self.fill.describe(stored)
                self.fill.key = place
        if self._response.length is not None:
            self.note_head(self._response)
            self._found(self._response.length)

    def _stored_for(self, response: OriginResponse) -> StoredResponse | None:
        return stored_for_getfile(response, self._request_time, time(), self._options)

    def _found(self, length: int) -> None:
        self._length = length
        self.spool.answer(BodyFound(length))
        if self.fill is not None:
            self.fill.set_size(length)

    def _finish(self, response: OriginResponse | None) -> None:
        """The answer has ended; None: it was the rest of one."""
        if response is not None and response.status in ABSENT_STATUSES:
            self.spool.answer(BodyMissing())
            return
        if response is not None and response.status != 200:
            raise OriginBadReply(
                f"status {response.status}",
                status=response.status,
                retryable=response.status >= 500 or response.status in (408, 429),
            )
        self.check_whole()
        if not self._started:  # an empty body
            self._start_body()
        if not self.spool.answered:
            self._found(self.spool.written)
        if self.fill is not None:
            self.fill.finish()
            is_there = self.fill.stored and not self.token.withdrawn
            if is_there and self._variants is not None and self._stored is not None:
                self._variants.enter(self.key, self.fill.key, self._stored)


class GetfileFetches:
    """What getfile clients ask of an origin."""

    def __init__(
        self,
        table: FetchTable,
        origin: OriginClient,
        locate: Callable[[bytes], tuple[str, OriginLimits | None] | None],
        *,
        tries: int,
        window_bytes: int,
        go_on_share: float,
        make_fill: MakeFill | None,
        options: CachingOptions,
        variants: GetfileVariants | None = None,
    ) -> None:
        """`locate` says where an origin has a key, and its limits; None when no origin has it."""
        self._table = table
        self._origin = origin
        self._locate = locate
        self._tries = tries
        self._window_bytes = window_bytes
        self._go_on_share = go_on_share
        self._make_fill = make_fill
        self._options = options
        self._variants = variants

    def open(self, key: bytes, missed_at: float = math.inf) -> SpoolReader | None:
        """A reader of the key's body: of the fetch that runs already, or of a new one.

        `missed_at` is the moment (monotonic) before the cache was asked: None when the cache was filled with the key
        since then, so that it should be asked again.

        Raises:
            Overloaded: too many fetches at once.
            OriginUnreachable: the daemon stops.
        """
        opened = self._table.open(key, lambda spool: self._make(key, spool), missed_at)
        return None if opened is None else opened[0]

    def has_origin(self, key: bytes) -> bool:
        """Whether there is somebody to ask for the key."""
        return self._locate(key) is not None

    def _make(self, key: bytes, spool: Spool) -> FetchJob:
        place = self._locate(key)
        assert place is not None
        return _GetfileFetch(
            key,
            place[0],
            spool,
            self._table.stopping,
            self._origin,
            place[1],
            self._make_fill(key, spool) if self._make_fill is not None else None,
            self._variants,
            self._options,
            tries=self._tries,
            window_bytes=self._window_bytes,
            go_on_share=self._go_on_share,
        )
