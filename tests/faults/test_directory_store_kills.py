"""SIGKILL at every step of a DirectoryStore: the next start finds whole objects only, and no file without one."""

from __future__ import annotations

import os
import signal
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import pytest

from simplecached.stores.directory_store import DirectoryStore
from simplecached.stores.steps import KILL_POINTS
from tests.support.stores import get, put, run_script

if TYPE_CHECKING:
    from pathlib import Path

# Writes "kept" whole, then does the named work on "key" and dies at the named step.
SCRIPT = """
    import os, signal, sys
    from simplecached.stores import directory_store, steps

    path, work, point = sys.argv[1:]

    def put(key, body):
        writer = store.begin(key, len(body), b"meta")
        for start in range(0, len(body), 4096):
            writer.write(memoryview(body)[start : start + 4096])
            if armed and point == "half written" and start:
                die()
        writer.commit()

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def checkpoint(name):
        if armed and name == point:
            die()

    armed = False
    steps.checkpoint = checkpoint
    store = directory_store.DirectoryStore(path, 100_000, inside_max=10 if work == "purge" else 1000)
    put(b"kept", b"kept")
    if work != "first":
        put(b"key", b"old" * 5000)
    if work == "purge":
        for number in range(600):
            put(b"many/%d" % number, b"x")
    store.settle()
    pinned = store.open(b"key") if work == "remove while read" else None
    armed = True
    if work in ("first", "replace"):
        put(b"key", b"new" * 5000)
    elif work == "evict":
        put(b"big", bytes(99_990))
    elif work.startswith("remove"):
        store.remove(b"key")
    elif work == "relabel":
        store.replace_metadata(b"key", 0, b"meta and more")
    elif work == "invalidate":
        store.invalidate_prefix(b"k")
    elif work == "close":
        store.open(b"key").release()
        store.close()
    elif work == "purge":
        store.remove_prefix(b"many/")
    if work != "close":
        store.settle()
    print("not killed")
"""
OLD, NEW = b"old" * 5000, b"new" * 5000
CASES = [
    ("first", "created", {None}),
    ("first", "half written", {None}),
    ("first", "written", {None}),
    ("first", "renamed", {None}),
    ("first", "synced", {None}),
    ("first", "indexed", {NEW}),
    ("replace", "created", {OLD}),
    ("replace", "half written", {OLD}),
    ("replace", "written", {OLD}),
    ("replace", "renamed", {OLD}),
    ("replace", "unlinked", {None, NEW}),
    ("replace", "synced", {None, OLD}),
    ("replace", "indexed", {NEW}),
    ("replace", "unindexed", {NEW}),
    ("evict", "unlinked", {None}),
    ("evict", "unindexed", {None}),
    ("remove", "unlinked", {None}),
    ("remove", "unindexed", {None}),
    ("remove while read", "unlinked", {None}),
    ("remove while read", "unindexed", {None}),
    ("close", "flushed", {OLD}),
    ("relabel", "relabelled", {OLD}),
    ("invalidate", "invalidated", {OLD}),
    ("purge", "purged", {OLD}),
    ("purge", "unlinked", {OLD}),
    ("purge", "unindexed", {OLD}),
]


def test_every_kill_point_is_used() -> None:
    assert {point for _, point, _ in CASES} - {"half written"} == set(KILL_POINTS)


@pytest.mark.parametrize(("work", "point", "bodies"), CASES, ids=[f"{work}-{point}" for work, point, _ in CASES])
def test_killed_there(tmp_path: Path, work: str, point: str, bodies: set[bytes | None]) -> None:
    path = str(tmp_path / "store")
    ended = run_script(SCRIPT, path, work, point)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, "", "")
    for _ in range(2):  # the second start sees what the first one made of it
        store = DirectoryStore(path, 100_000)
        store.settle()
        try:
            assert get(store, b"many/599") is None
            is_right = get(store, b"key") in bodies
            assert is_right
            # An eviction takes the longest unused first; a kill in its middle may have taken it already.
            assert get(store, b"kept") in ({b"kept", None} if work == "evict" else {b"kept"})
            if point != "unindexed":  # its row is written before those of the evicted are removed
                assert store.open(b"big") is None
            entries = store.records()
            metadata = {entry.key: entry.metadata for entry in entries}
            assert metadata.pop(b"key", b"meta") == (b"meta and more" if work == "relabel" else b"meta")
            assert set(metadata.values()) <= {b"meta"}
            assert [entry.invalidated for entry in entries] == [work == "invalidate"] * len(entries)
            files = [
                os.path.join(at, name) for at, _, names in os.walk(os.path.join(path, "objects")) for name in names
            ]
            assert sorted(os.stat(name).st_size for name in files) == sorted(entry.size_bytes for entry in entries)
            assert os.listdir(os.path.join(path, "tmp")) == []
            assert store.stats().used_bytes == sum(entry.cost_bytes for entry in entries)
        finally:
            store.close()
    store = DirectoryStore(path, 100_000)
    try:
        version = put(store, b"key", b"after")
        assert get(store, b"key") == b"after"
        assert all(entry.version <= version for entry in store.records())
    finally:
        store.close()


# Purges "key" at one step of the named work on it, and dies at that step or a later one; at the end if there is none,
# because what has been removed gets no row.
PURGE_SCRIPT = """
    import os, signal, sys
    from simplecached.stores import directory_store, steps

    path, work, purge, purge_point, point = sys.argv[1:]
    acknowledged = armed = False

    def put(key, body):
        writer = store.begin(key, len(body), b"meta")
        writer.write(memoryview(body))
        writer.commit()

    def checkpoint(name):
        global acknowledged, armed
        if armed and name == purge_point:
            armed = False
            getattr(store, purge)(b"" if purge.endswith("prefix") else b"key")
            acknowledged = True
        if acknowledged and name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.checkpoint = checkpoint
    store = directory_store.DirectoryStore(path, 100_000)
    if work == "replace":
        put(b"key", b"old")
    store.settle()
    armed = True
    put(b"key", b"new" * 5000)
    store.settle()
    os.kill(os.getpid(), signal.SIGKILL)
"""
COMMIT_POINTS = ("written", "renamed", "synced", "indexed")


@pytest.mark.parametrize(("purge_point", "point"), list(combinations_with_replacement(COMMIT_POINTS, 2)))
@pytest.mark.parametrize("purge", ["remove", "remove_prefix", "invalidate", "invalidate_prefix"])
@pytest.mark.parametrize("work", ["first", "replace"])
def test_what_was_purged_during_a_commit_stays_so(
    tmp_path: Path, work: str, purge: str, purge_point: str, point: str
) -> None:
    path = str(tmp_path / "store")
    ended = run_script(PURGE_SCRIPT, path, work, purge, purge_point, point)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, "", "")
    store = DirectoryStore(path, 100_000)
    store.settle()
    try:
        if purge.startswith("remove"):
            assert store.records() == []
        else:
            # A kill before the row is written loses an object that has been replaced already.
            is_kept = point == "indexed" or (work == "replace" and point in ("written", "renamed"))
            invalidated = [entry.invalidated for entry in store.records()]
            assert invalidated in ([[True]] if is_kept else [[], [True]])
        files = [name for _, _, names in os.walk(os.path.join(path, "objects")) for name in names]
        assert len(files) == len(store.records())
    finally:
        store.close()
