"""A hot table between processes: one that rewrites all the time, and one that dies in the middle of it."""

from __future__ import annotations

import os

import pytest

from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.channels import unique_queue
from tests.support.holders import holding, swept
from tests.support.hot_tables import entry
from tests.support.waiting import wait_until

OWNER = """
import atexit, itertools, os, threading
os.environ["GFCACHE_FAULT"] = sys.argv[2] + ":kill" if len(sys.argv) > 2 else ""
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.naming import queue_guard_path
from shmchannel.objects.hot_table_writer import HotTableWriter

guard = ProcessGuard.acquire(queue_guard_path(sys.argv[1]))
hot_table = HotTableWriter.create(sys.argv[1], 65536)

def put(key, version, body, metadata):
    return hot_table.publish(hot_table.begin(key), key, version, metadata, body)
"""

DIES_IN_A_PUBLISH = f"""{OWNER}
assert put(b"/a", 1, b"whole", b"")
atexit.register(put, b"/b", 2, b"half", b"")
"""

DIES_IN_A_REPLACEMENT = f"""{OWNER}
assert put(b"/a", 1, b"whole", b"") and put(b"/b", 2, b"old", b"")
atexit.register(put, b"/b", 3, b"new", b"")
"""

DIES_IN_A_PURGE = f"""{OWNER}
assert put(b"/a", 1, b"whole", b"") and put(b"/b", 2, b"purged", b"")
atexit.register(hot_table.drop, b"/b")
"""

DIES_IN_AN_EVICTION = f"""{OWNER}
for number in range(2):
    assert put(b"/b" if number == 0 else b"/%d" % number, number, bytes(15000), b"")
assert put(b"/a", 1, b"whole", b"")
atexit.register(put, b"/c", 9, bytes(15000), b"")
"""

READS = """
import atexit, os
from concurrent.futures import ThreadPoolExecutor
from tests.faults.test_hot_table import look

looks = ThreadPoolExecutor(1).submit(look, sys.argv[1])
atexit.register(lambda: os._exit(looks.exception() is not None or looks.result()[0] < 1000))
"""

KEYS = 13
REWRITES = f"""{OWNER}
def rewrite():
    for version in itertools.count(1):
        word = version.to_bytes(8, "little")
        put(b"/%d" % (version % {KEYS}), version, word * (1 + version % 2000), word * (version % 7))

threading.Thread(target=rewrite, daemon=True).start()
"""

WHOLE_MIN = 1_000
LOOKS_MAX = 20_000_000


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        (DIES_IN_A_PUBLISH, "cache.publishing:2"),
        (DIES_IN_A_REPLACEMENT, "cache.withdrawing:1"),
        (DIES_IN_A_REPLACEMENT, "cache.publishing:3"),
        (DIES_IN_A_PURGE, "cache.withdrawing:1"),
        (DIES_IN_AN_EVICTION, "cache.withdrawing:1"),
        (DIES_IN_AN_EVICTION, "cache.publishing:4"),
    ],
    ids=["publish", "replace: off", "replace: on", "purge", "evict: off", "evict: on"],
)
def test_cache_dies_in_the_middle(program: str, fault: str) -> None:
    """A reader that has it mapped sees what is finished and nothing of the other; the next sweep removes the name."""
    queue_name = unique_queue()
    with holding(program, queue_name, fault) as owner:
        reader = HotTableReader.attach(queue_name)
        assert reader.get(b"/a") == entry(1, b"whole")
        assert owner.release() == -9
        assert reader.get(b"/a") == entry(1, b"whole")
        assert (reader.get(b"/b"), reader.get(b"/c")) == (None, None)
        swept(owner.pid)
        wait_until(lambda: not os.path.exists(SHM_DIRECTORY + hot_table_name(queue_name)), what="the sweep")
        reader.close()


def test_no_torn_bytes() -> None:
    """Objects of ever other lengths change and give way as fast as a process can: each copy is of one version.

    Two readers at a time, each in a process of its own, for the other one sees the use marks of both.
    """
    queue_name = unique_queue()
    with holding(REWRITES, queue_name), holding(READS, queue_name) as other:
        seen, nothing = look(queue_name)
        assert other.release() == 0
    assert seen >= WHOLE_MIN, f"{nothing} looks saw nothing"
    assert nothing, "no look came while a cell was being written"


def look(queue_name: str) -> tuple[int, int]:
    """Look until enough versions were seen; returns how many, and how often there was nothing."""
    seen: set[int] = set()
    nothing = 0
    reader = HotTableReader.attach(queue_name)
    for number in range(LOOKS_MAX):
        key = b"/%d" % (number % KEYS)
        found = reader.get(key)
        if found is None:
            nothing += 1
            continue
        word = found.version.to_bytes(8, "little")
        assert found.body == word * (1 + found.version % 2000)
        assert found.metadata == word * (found.version % 7)
        assert number % KEYS == found.version % KEYS
        seen.add(found.version)
        if len(seen) >= WHOLE_MIN and nothing:
            break
    reader.close()
    return len(seen), nothing
