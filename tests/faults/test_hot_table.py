"""A hot table between two processes: one that rewrites all the time, and one that dies in the middle of it."""

from __future__ import annotations

import itertools
import os

from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.channels import unique_queue
from tests.support.holders import holding, swept
from tests.support.hot_tables import entry
from tests.support.waiting import wait_until

OWNER = """
import atexit, itertools, os, threading
os.environ["GFCACHE_FAULT"] = "cache.publishing:2:kill" if "dies" in sys.argv else ""
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.naming import queue_guard_path
from shmchannel.objects.hot_table_writer import HotTableWriter

guard = ProcessGuard.acquire(queue_guard_path(sys.argv[1]))
hot_table = HotTableWriter.create(sys.argv[1], 65536)

def put(key, version, body, metadata, step=1 << 20):
    def read_into(views, offset):
        part = body[offset : offset + min(step, len(views[0]))]
        views[0][: len(part)] = part
        return len(part)

    return hot_table.publish(hot_table.begin(), key, version, metadata, len(body), read_into, life_ns=10**15)
"""

DIES_IN_A_PUBLISH = f"""{OWNER}
assert put(b"/a", 1, b"whole", b"")
atexit.register(put, b"/b", 2, b"half", b"")
"""

REWRITES = f"""{OWNER}
def rewrite():
    for version in itertools.count(1):
        word = version.to_bytes(8, "little")
        put(b"/a" if version % 2 else b"/b", version, word * (1 + version % 2000), word * (version % 7), step=4096)

threading.Thread(target=rewrite, daemon=True).start()
"""

WHOLE_MIN = 1_000
LOOKS_MAX = 20_000_000


def test_cache_dies_in_a_publish() -> None:
    """A reader that has it mapped sees the finished entry and nothing of the other; the next sweep removes the name."""
    queue_name = unique_queue()
    with holding(DIES_IN_A_PUBLISH, queue_name, "dies") as owner:
        reader = HotTableReader.attach(queue_name)
        assert reader.get(b"/a") == entry(1, b"whole")
        assert owner.release() == -9
        assert (reader.get(b"/a"), reader.get(b"/b")) == (entry(1, b"whole"), None)
        swept(owner.pid)
        wait_until(lambda: not os.path.exists(SHM_DIRECTORY + hot_table_name(queue_name)), what="the sweep")
        reader.close()


def test_no_torn_bytes() -> None:
    """Two entries of ever other lengths change as fast as a process can: each copy is of one version, end to end."""
    queue_name = unique_queue()
    seen: set[int] = set()
    nothing = 0
    with holding(REWRITES, queue_name):
        reader = HotTableReader.attach(queue_name)
        keys = itertools.cycle([b"/a", b"/b"])
        for key, _ in zip(keys, range(LOOKS_MAX), strict=False):
            found = reader.get(key)
            if found is None:
                nothing += 1
                continue
            word = found.version.to_bytes(8, "little")
            assert found.body == word * (1 + found.version % 2000)
            assert found.metadata == word * (found.version % 7)
            assert (key == b"/a") == bool(found.version % 2)
            seen.add(found.version)
            if len(seen) >= WHOLE_MIN and nothing:
                break
        reader.close()
    assert len(seen) >= WHOLE_MIN, f"{nothing} looks saw nothing"
    assert nothing, "no look came while a cell was being written"
