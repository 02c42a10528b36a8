"""Fetches for tests: running against a stub, read as the exchange reads them, with a fill that only remembers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, Unpack

import pytest

from tests.support.sinks import origin_client
from tests.support.waiting import WATCHDOG_S
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.errors import BodyCutShort, OriginError
from webproxy.fetch.getfile_fetch import GetfileFetches, MakeFill
from webproxy.fetch.http_fetch import HttpFetches
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.fetch.table import FetchTable
from webproxy.http.urls import origin_url
from webproxy.origin.client import OriginClient
from webproxy.origin.forwarded_request import FetchSettings, ForwardedRequest
from webproxy.store.fill import Fill
from webproxy.store.getfile_variants import GetfileVariants
from webproxy.store.lookup import ObjectLookup
from webproxy.store.store import NoStore
from webproxy.store.updates import CacheUpdater
from workloads.origin_stub import OriginStub


def fetches_without_a_store(table: FetchTable, asker: ForwardedRequest, settings: FetchSettings) -> HttpFetches:
    """HTTP fetches of a proxy that stores nothing."""
    store = NoStore()
    lookup = ObjectLookup(store)
    updates = CacheUpdater(store, lookup)
    return HttpFetches(table, asker, settings, updates, PartialStore(store, lookup, updates))


class FakeFill(Fill):
    """A cache that takes what it is given, up to where the test lets it."""

    def __init__(self, key: bytes, spool: Spool) -> None:
        self.key = key
        self.spool = spool
        self.size: int | None = None
        self.taken: int | None = None
        self.takes = True
        self.waited_for = False
        self.cancelled = False
        self.given_up = False
        self.stored = False

    @property
    def position(self) -> int | None:
        return self.taken

    @property
    def is_coming(self) -> bool:
        return not self.given_up and self.taken is not None

    @property
    def chunk_bytes(self) -> int:
        return 65_536

    def set_size(self, size_bytes: int) -> None:
        self.size = size_bytes

    def pump(self) -> None:
        if self.takes and self.size is not None:
            self.taken = self.spool.written

    def yield_turn(self) -> None:
        if self.waited_for:
            self.taken = None

    def finish(self) -> None:
        self.taken, self.stored = None, True

    def cancel(self) -> None:
        self.cancelled = True


class RunningFetches(GetfileFetches):
    """Fetches from one origin, with the table that runs them."""

    def __init__(self, table: FetchTable, origin: OriginClient, url: str, **settings: Unpack[_Settings]) -> None:
        super().__init__(table, origin, lambda key: (origin_url(url, key), None), options=DEFAULT_OPTIONS, **settings)
        self.table = table


class _Settings(TypedDict):
    tries: int
    window_bytes: int
    go_on_share: float
    make_fill: MakeFill | None
    variants: GetfileVariants | None


@contextmanager
def table_of(threads: int = 8, directory: Path | None = None) -> Iterator[FetchTable]:
    """A table that is stopped, and waited for, at the end."""
    made = FetchTable(threads=threads, spool_directory=None if directory is None else str(directory))
    try:
        yield made
    finally:
        made.stop()
        made.join(WATCHDOG_S)


@contextmanager
def running(
    origin: OriginStub,
    *,
    threads: int = 8,
    tries: int = 3,
    window_bytes: int = 1 << 20,
    go_on_share: float = 0.0,
    make_fill: MakeFill | None = None,
    variants: GetfileVariants | None = None,
    directory: Path | None = None,
    object_bytes_max: int = 1 << 30,
) -> Iterator[RunningFetches]:
    with table_of(threads, directory) as table:
        yield RunningFetches(
            table,
            origin_client(object_bytes_max=object_bytes_max),
            origin.url,
            tries=tries,
            window_bytes=window_bytes,
            go_on_share=go_on_share,
            make_fill=make_fill,
            variants=variants,
        )


def opened(fetches: GetfileFetches, key: bytes, missed_at: float = float("inf")) -> SpoolReader:
    reader = fetches.open(key, missed_at)
    assert reader is not None
    return reader


def read(reader: SpoolReader) -> bytes:
    """All of the body, as the exchange reads it; closes the reader."""
    try:
        answer = reader.wait_answer()
        assert isinstance(answer, BodyFound), answer
        body = b""
        while len(body) < answer.length:
            if reader.wait_available() <= 0:
                raise BodyCutShort("ended before its length")
            piece = os.pread(reader.fd, answer.length - len(body), len(body))
            body += piece
            reader.advance(len(piece))
        return body
    finally:
        reader.close()


def skip_to_the_end(reader: SpoolReader) -> None:
    """Take all that comes, until there is a failure."""
    while True:
        reader.advance(reader.wait_available())


def failure(reader: SpoolReader) -> OriginError:
    with pytest.raises(OriginError) as caught:
        reader.wait_answer()
    reader.close()
    return caught.value


def remembering(made: list[FakeFill], change: Callable[[FakeFill], None] = lambda fill: None) -> MakeFill:
    def make(key: bytes, spool: Spool) -> Fill:
        made.append(FakeFill(key, spool))
        change(made[-1])
        return made[-1]

    return make
