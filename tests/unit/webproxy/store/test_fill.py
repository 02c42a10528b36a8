"""Fill against a real cache: whole objects get in, parts never do, and neither a hit nor a client waits for it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.failing import refusing
from tests.support.http_values import stored_response
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.partial import as_incomplete
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import decode
from webproxy.errors import OriginTimeout
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.store.cache_client import CacheClient
from webproxy.store.fill import FillRequest, Fills, StoreToken

SEGMENT_BYTES = 8192
STORE_BYTES = 1 << 20
BODY = os.urandom(300_001)


@pytest.fixture
def cache(yard: DaemonYard) -> DaemonProcess:
    return yard.start_cache(
        "--store-bytes", str(STORE_BYTES), "-t", "2", env={"SIMPLECACHED_BETWEEN_BYTES_TIMEOUT_S": "20"}
    )


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    made = SegmentPool.create(4, SEGMENT_BYTES)
    yield made
    made.close()


@pytest.fixture
def client(yard: DaemonYard, pool: SegmentPool) -> Iterator[ChannelClient]:
    made = ChannelClient(yard.queue, pool, between_bytes_timeout_s=5.0)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause of a test's is one of its origin, or of the cache."""
    monkeypatch.setattr("webproxy.store.fill.STILL_SECONDS", WATCHDOG_S)
    monkeypatch.setattr("webproxy.store.fill.YIELD_SECONDS", WATCHDOG_S)


RESPONSE = stored_response(b'ETag: "a"')


class Ingredient:
    """The stored part that the object is completed from, as the test says."""

    def __init__(self) -> None:
        self.look: Callable[[], bool] = lambda: True

    def is_as_found(self) -> bool:
        return self.look()


class Download:
    """A spool with one reader and its fill, as a fetch has them."""

    def __init__(
        self,
        client: ChannelClient,
        pool: SegmentPool,
        directory: Path,
        body: bytes = BODY,
        stored: StoredResponse = RESPONSE,
    ) -> None:
        self.body = body
        self.spool = Spool(str(directory))
        reader = self.spool.join()
        assert reader is not None
        self.reader: SpoolReader = reader
        self.made_of = Ingredient()
        self.token = StoreToken()
        request = FillRequest(b"/x", stored, len(body), self.token, self.made_of)
        self.fill = Fills(CacheClient(client, patient=False)).begin(request, self.spool)
        self.is_stored = False
        self.spool.answer(BodyFound(len(body)))

    def finish(self) -> bool:
        """All has come."""
        self.is_stored = self.fill.finish()
        return self.is_stored

    def receive(self, end: int, step: int = 10_000) -> None:
        """The origin's bytes up to `end` have come."""
        while self.spool.written < end:
            self.spool.write(self.body[self.spool.written : min(end, self.spool.written + step)])
            self.fill.pump()

    def is_filling(self) -> bool:
        """Whether the cache has got a part and more is to come."""
        return bool(self.fill.position)

    def yields_turn(self) -> bool:
        """Whether the fill let go, for now, at the latest now."""
        self.fill.pump()
        return self.fill.position is None and not self.fill.given_up

    def gives_up(self) -> bool:
        """Whether the fill gave up at the latest now."""
        self.fill.pump()
        return self.fill.given_up

    def end(self) -> None:
        """As a fetch ends."""
        self.spool.end()
        self.fill.cancel()
        self.reader.close()


@pytest.fixture
def download(client: ChannelClient, pool: SegmentPool, tmp_path: Path) -> Iterator[Download]:
    made = Download(client, pool, tmp_path)
    yield made
    made.end()


def stored(client: ChannelClient, key: bytes = b"/x") -> bytes | None:
    with client.get(key, Deadline.after(WATCHDOG_S)) as transfer:
        if not transfer.found:
            transfer.finish()
            return None
        body = bytes(transfer.chunk)
        while not transfer.last:
            transfer.advance()
            body += bytes(transfer.chunk)
        transfer.finish()
        return body


def freeze(cache: DaemonProcess) -> None:
    """Let it hang, until SIGCONT."""
    cache.signal(signal.SIGSTOP)
    wait_until(cache.is_stopped)


def all_free(pool: SegmentPool) -> bool:
    stats = pool.stats()
    return stats.segments_leased == 0 and stats.segments_total == 4


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES - 384, SEGMENT_BYTES, 3 * (SEGMENT_BYTES - 384), len(BODY)])
def test_a_whole_body_is_stored(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path, size: int
) -> None:
    download = Download(client, pool, tmp_path, BODY[:size])
    download.receive(size)
    download.finish()
    assert download.is_stored
    assert stored(client) == BODY[:size]
    download.end()
    assert all_free(pool)
    assert pool.stats().retired_total == 0


@pytest.mark.parametrize("received", [0, 100_000, len(BODY)], ids=["nothing", "a part", "all but its end"])
def test_what_is_purged_on_its_way_is_not_stored(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download, received: int
) -> None:
    download.receive(received)
    assert stored(client) is None  # not before finish(), however much has come
    assert download.token.revoke(0.0)
    download.receive(len(BODY))
    download.finish()
    assert (download.is_stored, download.fill.given_up) == (False, True)
    assert stored(client) is None
    assert all_free(pool)


def metadata_in(client: ChannelClient, key: bytes = b"/x") -> bytes:
    with client.get(key, Deadline.after(WATCHDOG_S), metadata_wanted=True) as transfer:
        assert transfer.found
        metadata = transfer.metadata
        transfer.cancel_quietly()
    return metadata


@pytest.mark.parametrize("complete", [False, True], ids=["while it comes", "when it has come"])
def test_the_metadata_is_written_for_the_size_that_the_body_has(
    cache: DaemonProcess, client: ChannelClient, download: Download, *, complete: bool
) -> None:
    if complete:
        download.spool.write(BODY)
    else:
        download.receive(len(BODY))
    assert download.finish()
    assert decode(metadata_in(client)) == replace(RESPONSE, body_bytes=len(BODY))
    assert stored(client) == BODY


def test_a_size_that_nobody_knew_is_what_has_come(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download
) -> None:
    download.spool.write(BODY)
    fill = Fills(CacheClient(client, patient=False)).begin(FillRequest(b"/y", RESPONSE), download.spool)
    fill.pump()
    assert stored(client, b"/y") is None
    assert fill.finish()
    assert decode(metadata_in(client, b"/y")).body_bytes == len(BODY)
    assert stored(client, b"/y") == BODY


def test_a_partial_response_keeps_the_length_of_the_whole(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download
) -> None:
    download.spool.write(BODY)
    partial = as_incomplete(RESPONSE, 2 * len(BODY))
    assert Fills(CacheClient(client, patient=False)).begin(FillRequest(b"/y", partial), download.spool).finish()
    assert decode(metadata_in(client, b"/y")) == partial
    assert stored(client, b"/y") == BODY


def test_metadata_that_is_too_long_leaves_the_object_unstored_and_costs_no_segment(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, stored=stored_response(b"X: " + b"x" * 100_000))
    download.receive(100_000)
    assert download.fill.given_up
    download.receive(len(BODY))
    assert not download.finish()
    assert stored(client) is None
    download.end()
    assert all_free(pool)
    assert pool.stats().retired_total == 0


def test_a_part_is_never_seen_and_a_cancelled_fill_leaves_nothing(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download
) -> None:
    download.receive(200_000)
    assert download.is_filling()
    assert stored(client) is None
    download.spool.end(OriginTimeout("stalled"))
    download.fill.cancel()
    assert stored(client) is None
    assert not download.is_stored
    assert all_free(pool)
    assert pool.stats().retired_total == 0


def test_a_store_that_is_too_small_refuses_and_the_fill_gives_up(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, os.urandom(STORE_BYTES + 1))
    download.receive(100_000)
    wait_until(download.gives_up)
    assert all_free(pool)
    download.receive(STORE_BYTES + 1)
    download.finish()
    assert not download.is_stored
    assert stored(client) is None
    assert pool.stats().retired_total == 0
    download.end()


def test_it_gives_way_to_one_that_waits_and_is_stored_in_the_end(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download
) -> None:
    download.receive(100_000)
    assert download.is_filling()
    others = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(2)]
    with ThreadPoolExecutor(1) as crew:
        assert pool.stats().segments_leased == 4  # the fill holds two of them
        waiting = crew.submit(pool.lease, Deadline.after(WATCHDOG_S), 1)
        wait_until(lambda: pool.waiting == 1)
        download.fill.yield_turn()
        others.append(waiting.result(WATCHDOG_S))
    assert not download.is_filling()
    download.receive(len(BODY))
    assert not download.is_filling()  # not begun anew before the body is complete
    for lease in others:
        lease.give_back()
    download.finish()
    assert download.is_stored
    assert stored(client) == BODY
    assert pool.stats().retired_total == 0


@pytest.mark.parametrize("noticed_by", ["pump", "yield_turn"])
def test_it_gives_way_when_the_origin_lets_it_stand_still(
    cache: DaemonProcess,
    client: ChannelClient,
    pool: SegmentPool,
    download: Download,
    monkeypatch: pytest.MonkeyPatch,
    noticed_by: str,
) -> None:
    download.receive(100_000)
    assert download.is_filling()
    monkeypatch.setattr("webproxy.store.fill.STILL_SECONDS", 0.0)

    def gave_way() -> bool:
        getattr(download.fill, noticed_by)()
        return not download.is_filling()

    wait_until(gave_way)  # the cache may still have been taking what had come
    assert download.fill.is_coming
    assert all_free(pool)
    assert stored(client) is None
    download.receive(len(BODY))
    assert not download.is_filling()  # not begun anew before the body is complete
    download.finish()
    assert stored(client) == BODY
    assert pool.stats().retired_total == 0


def test_it_gives_way_also_when_the_cache_lets_it_stand_still(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all workers of the cache are busy; what it was told then is of no use to it afterwards."""
    monkeypatch.setattr("webproxy.store.fill.STILL_SECONDS", 0.05)
    monkeypatch.setattr("webproxy.store.fill.YIELD_SECONDS", 0.05)
    freeze(cache)
    download.receive(len(BODY))
    wait_until(download.yields_turn)
    assert all_free(pool)
    cache.signal(signal.SIGCONT)
    download.finish()
    assert stored(client) == BODY


@pytest.mark.parametrize("size", [1, SEGMENT_BYTES - 384, SEGMENT_BYTES])
def test_what_fills_no_chunk_holds_nothing_before_it_is_complete(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path, size: int
) -> None:
    download = Download(client, pool, tmp_path, BODY[:size])
    download.receive(size)
    assert pool.stats().leases_total == 0
    assert download.fill.is_coming
    download.finish()
    assert stored(client) == BODY[:size]
    download.end()


def test_it_comes_only_while_there_is_a_cache(
    yard: DaemonYard, client: ChannelClient, pool: SegmentPool, tmp_path: Path, download: Download
) -> None:
    assert not download.fill.is_coming
    yard.start_cache()
    wait_until(lambda: download.fill.is_coming)
    unknown = Fills(CacheClient(client, patient=False)).begin(FillRequest(b"/y", RESPONSE), download.spool)
    assert not unknown.is_coming, "of a size that is not known"
    download.fill.cancel()
    assert not download.fill.is_coming


def test_it_does_not_yield_when_nobody_waits(cache: DaemonProcess, client: ChannelClient, download: Download) -> None:
    download.receive(100_000)
    download.fill.yield_turn()
    assert download.is_filling()
    download.receive(len(BODY))
    download.finish()
    assert stored(client) == BODY


def test_with_every_segment_in_use_the_body_goes_on_and_is_stored_afterwards(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download
) -> None:
    leases = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(4)]
    download.receive(len(BODY))
    assert not download.is_filling()
    for lease in leases:
        lease.give_back()
    download.finish()
    assert stored(client) == BODY


def test_without_a_cache_no_segment_is_spent(pool: SegmentPool, client: ChannelClient, download: Download) -> None:
    download.receive(len(BODY))
    download.finish()
    assert not download.is_stored
    assert all_free(pool)
    assert (pool.stats().leases_total, pool.stats().retired_total) == (0, 0)


def test_a_cache_that_comes_in_mid_body_is_filled(yard: DaemonYard, client: ChannelClient, download: Download) -> None:
    download.receive(100_000)
    yard.start_cache()
    download.receive(len(BODY))
    download.finish()
    assert download.is_stored
    assert stored(client) == BODY


def test_a_cache_killed_in_mid_fill_is_given_up_without_waiting(
    cache: DaemonProcess, pool: SegmentPool, download: Download
) -> None:
    download.receive(100_000)
    assert download.is_filling()
    cache.kill()
    download.receive(len(BODY))
    download.finish()
    assert download.fill.given_up
    assert not download.is_stored
    assert all_free(pool)  # retired and replaced


def test_a_cache_that_hangs_is_given_up_at_the_stall_limit(
    yard: DaemonYard, cache: DaemonProcess, pool: SegmentPool, tmp_path: Path
) -> None:
    client = ChannelClient(yard.queue, pool, between_bytes_timeout_s=0.3)
    download = Download(client, pool, tmp_path)
    download.receive(20_000)
    freeze(cache)
    download.receive(len(BODY))
    wait_until(download.gives_up)
    assert all_free(pool)
    cache.signal(signal.SIGCONT)
    download.end()
    assert stored(client) is None
    client.close()


def test_giving_way_to_a_hit_does_not_wait_for_a_cache_that_hangs(
    cache: DaemonProcess, pool: SegmentPool, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webproxy.store.fill.YIELD_SECONDS", 0.05)
    download.receive(20_000)
    freeze(cache)
    others = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(2)]
    with ThreadPoolExecutor(1) as crew:
        waiting = crew.submit(pool.lease, Deadline.after(WATCHDOG_S), 1)
        wait_until(lambda: pool.waiting == 1)
        download.fill.yield_turn()
        waiting.result(WATCHDOG_S).give_back()
    for lease in others:
        lease.give_back()
    cache.signal(signal.SIGCONT)
    assert all_free(pool)


def test_a_spool_that_cannot_be_read_leaves_the_object_unstored(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    download.receive(20_000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", refusing(errno.EIO))
        download.receive(100_000)
        wait_until(download.gives_up)
    download.receive(len(BODY))
    download.finish()
    assert stored(client) is None
    assert all_free(pool)


def test_a_pool_without_replacements_is_the_pools_trouble_and_not_the_fetchs(
    cache: DaemonProcess, pool: SegmentPool, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/shm full when a broken fill's segments are to be replaced: the download continues."""
    download.receive(20_000)
    others = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(2)]
    cache.kill()
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refusing(errno.ENOSPC))
        download.receive(len(BODY))
        download.finish()
        assert download.fill.given_up
    for lease in others:
        lease.give_back()


@pytest.mark.parametrize("size", [100, 300_001])
@pytest.mark.parametrize("confirmed", [True, False])
def test_what_must_be_confirmed_is_no_object_before_that(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path, size: int, confirmed: bool
) -> None:
    download = Download(client, pool, tmp_path, BODY[:size])
    seen: list[bytes | None] = []

    def confirm() -> bool:
        seen.append(stored(client))
        return confirmed

    download.made_of.look = confirm
    download.receive(size)
    assert stored(client) is None
    download.finish()
    assert seen == [None]
    assert (stored(client) == BODY[:size], download.is_stored) == (confirmed, confirmed)
    download.end()
    assert all_free(pool)


# -- for somebody who may wait a moment only -------------------------------------------------------------------------
MOMENT_S = 0.02
SMALL = BODY[:5000]


def test_a_small_body_is_stored_in_a_moment_with_one_offer(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    assert pool.stats().leases_total == 0
    assert download.fill.finish(WATCHDOG_S) is True
    assert pool.stats().leases_total == 1
    assert stored(client) == SMALL
    download.end()
    assert all_free(pool)


def test_a_cache_that_takes_longer_is_waited_for_later(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    """It is offered once; until there is an answer, no purge can be certain."""
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    freeze(cache)
    assert download.fill.finish(MOMENT_S) is None
    assert download.fill.finish(MOMENT_S) is None
    assert pool.stats().leases_total == 1
    assert not download.token.revoke(0.0)
    cache.signal(signal.SIGCONT)
    assert download.fill.finish() is True
    assert download.token.revoke(0.0)
    assert stored(client) == SMALL
    download.end()
    assert all_free(pool)
    assert pool.stats().retired_total == 0


def test_without_a_free_segment_there_is_nothing_to_be_done_in_a_moment(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    leases = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(4)]
    assert download.fill.finish(MOMENT_S) is None
    assert download.token.revoke(0.0) is True, "nothing is on its way"
    download.end()
    other = Download(client, pool, tmp_path, SMALL)
    other.receive(len(SMALL))
    assert other.fill.finish(MOMENT_S) is None
    for lease in leases:
        lease.give_back()
    assert other.fill.finish() is True
    other.end()
    assert all_free(pool)


def test_with_a_single_segment_it_goes_on_when_the_cache_has_taken_the_metadata(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    leases = [pool.lease(Deadline.after(WATCHDOG_S), 1) for _ in range(3)]
    freeze(cache)
    assert download.fill.finish(MOMENT_S) is None
    assert download.token.revoke(0.0) is True, "the last chunk is still here"
    cache.signal(signal.SIGCONT)
    assert download.fill.finish() is False
    for lease in leases:
        lease.give_back()
    assert stored(client) is None
    download.end()
    assert all_free(pool)


def test_a_cache_that_dies_in_that_moment_leaves_the_token_free(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path
) -> None:
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    freeze(cache)
    assert download.fill.finish(MOMENT_S) is None
    cache.kill()
    assert download.fill.finish() is False
    assert download.token.revoke(0.0)
    download.end()
    assert all_free(pool)


def test_one_that_is_cancelled_in_that_moment_leaves_the_token_free(
    cache: DaemonProcess, client: ChannelClient, pool: SegmentPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webproxy.store.fill.YIELD_SECONDS", 0.05)
    download = Download(client, pool, tmp_path, SMALL)
    download.receive(len(SMALL))
    freeze(cache)
    assert download.fill.finish(MOMENT_S) is None
    download.fill.cancel()
    assert download.token.revoke(0.0)
    assert download.fill.finish() is False
    cache.signal(signal.SIGCONT)
    download.end()
    assert all_free(pool)
