"""Measures a cache over a store of a million small objects, by commands, as a proxy sends them; for `bench --scale`.

The store's rows and files are written directly, which takes a minute or more. Then: memory and start of the cache that
serves it, fills, and a purge of everything that was made, which must hold from then on, and after a kill.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from scripts.benchmark.large_store import KEY_PREFIX, METADATA, body_of, key_of, make_store
from scripts.benchmark.load import LoadFailed
from scripts.benchmark.measure import say
from scripts.benchmark.memory import resident_mb
from scripts.benchmark.scale_rows import COMMANDS, FILLS, LEFT, MEMORY, PURGE, START, ScaleResults
from scripts.daemons import Daemon, DaemonFailed, executable, running_daemon
from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from simplecached.stores.directory_store import DirectoryStore

_TIMEOUT_S = 60.0
_LOOK_INTERVAL_S = 0.01
_SEGMENTS, _SEGMENT_BYTES = 16, 65_536
_READS = 20_000
_FILLS = 20_000
_FILL_BODY = bytes(2000)
_THREADS = 4
_SAMPLE = 500
_STORE_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the store is, and the log of the cache; and its queue's name."""

    directory: str
    queue_name: str

    @contextmanager
    def cache(self, store: str, log_name: str) -> Iterator[Daemon]:
        """Run a cache on a store below the directory."""
        command = [executable("simplecached"), "-q", self.queue_name, "--store", os.path.join(self.directory, store)]
        command += ["--store-bytes", str(_STORE_BYTES)]
        with running_daemon("simplecached", command, os.path.join(self.directory, log_name)) as cache:
            yield cache


def measure_scale(directory: str, count: int) -> ScaleResults:
    """Make a store of so many objects below the directory, and measure. Blocks for minutes.

    Raises:
        DaemonFailed: a cache did not start, or ended.
        LoadFailed: an answer was wrong.
    """
    say(f"making a store of {count:,} objects")
    make_store(os.path.join(directory, "store"), count)
    place = _Place(directory, f"/gfbench-scale-{os.getpid()}")
    with place.cache("empty", "empty.log") as cache:
        cache.wait_for_event("ready")
        empty_mb = resident_mb(cache.pid)
    figures = {}
    with ExitStack() as resources:
        pool = SegmentPool.create(count=_SEGMENTS, segment_bytes=_SEGMENT_BYTES)
        resources.callback(pool.close)
        client = ChannelClient(place.queue_name, pool)
        resources.callback(client.close)
        client.use_hot_table(is_wanted=False)
        numbers = random.Random(1).sample(range(count), min(_READS, count))
        with place.cache("store", "cache.log") as cache:
            say(START)
            began = time.monotonic()
            _wait_for(client)
            _check(client, numbers[0])
            figures[START] = time.monotonic() - began
            say(f"reading {len(numbers):,} objects")
            _in_threads(lambda number: _check(client, number), numbers)
            say(COMMANDS)
            figures[COMMANDS] = _fills_per_s(lambda number: _fill_by_command(client, number))
            cache.wait_for_event("recovered", _TIMEOUT_S + count / 5000)
            figures[MEMORY] = (resident_mb(cache.pid) - empty_mb) * 1e6 / count
            say(PURGE)
            began = time.monotonic()
            client.purge(KEY_PREFIX, Deadline.after(_TIMEOUT_S), prefix=True)
            figures[PURGE] = time.monotonic() - began
            served = _served(client, numbers[-_SAMPLE:])
            cache.kill()
        with place.cache("store", "next.log"):
            say("after a kill")
            _wait_for(client)
            served += _served(client, numbers[-_SAMPLE:])
        figures[LEFT] = float(served)
    say(FILLS)
    with closing(DirectoryStore(os.path.join(directory, "store"), _STORE_BYTES)) as store:
        figures[FILLS] = _fills_per_s(lambda number: _fill(store, number))
    return ScaleResults(count=count, figures=figures)


def _wait_for(client: ChannelClient) -> None:
    give_up = time.monotonic() + _TIMEOUT_S
    while not client.connected:
        if time.monotonic() > give_up:
            raise DaemonFailed(f"simplecached did not serve within {_TIMEOUT_S:.0f} s")
        time.sleep(_LOOK_INTERVAL_S)


def _check(client: ChannelClient, number: int) -> None:
    if _body(client, key_of(number)) != body_of(number):
        raise LoadFailed(f"object {number} of the store has another body, or none")


def _body(client: ChannelClient, key: bytes) -> bytes | None:
    with client.get(key, Deadline.after(_TIMEOUT_S)) as transfer:
        body = bytes(transfer.chunk) if transfer.found else None
        transfer.finish()
        return body


def _served(client: ChannelClient, numbers: Sequence[int]) -> int:
    return sum(_body(client, key_of(number)) is not None for number in numbers)


def _fills_per_s(fill: Callable[[int], None]) -> float:
    began = time.monotonic()
    _in_threads(fill, range(_FILLS))
    return _FILLS / (time.monotonic() - began)


def _fill_by_command(client: ChannelClient, number: int) -> None:
    deadline = Deadline.after(_TIMEOUT_S)
    key = b"http://other.example/%08d" % number

    def read_into(views: Sequence[memoryview], offset: int) -> int:
        views[0][:] = _FILL_BODY[offset : offset + len(views[0])]
        return len(views[0])

    with client.put(key, len(_FILL_BODY), METADATA, client.pool.lease(deadline, 1), deadline) as transfer:
        transfer.pump(read_into, len(_FILL_BODY), wait=True)
        if not transfer.commit():
            raise LoadFailed(f"the cache did not store {key.decode()}")


def _fill(store: DirectoryStore, number: int) -> None:
    writer = store.begin(b"http://third.example/%08d" % number, len(_FILL_BODY), METADATA)
    writer.write(memoryview(_FILL_BODY))
    writer.commit()


def _in_threads(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    def each(start: int) -> None:
        for number in numbers[start::_THREADS]:
            work(number)

    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(each, range(_THREADS)):
            pass
