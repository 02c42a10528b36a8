"""Small verbs for tests of sources and stores."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from _thread import allocate_lock
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from simplecached.errors import StoreUnavailable
from simplecached.stores.directory_index import DirectoryIndex
from simplecached.stores.directory_store import DirectoryStore
from simplecached.stores.lru_store import LruStore
from simplecached.stores.memory_store import MemoryStore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from simplecached.stores.record import Record
    from simplecached.stores.store import ObjectSource, StoredObject

PROJECT = Path(__file__).resolve().parents[2]


class StoreFactory(Protocol):
    """Makes an empty store with these bounds; the fixture closes it."""

    def __call__(self, budget_bytes: int = ..., entries_max: int = ..., **more: Any) -> Any: ...


class LockThatTells:
    """A lock that sets an event when it is asked for while somebody has it."""

    def __init__(self, asked: threading.Event) -> None:
        self._lock = allocate_lock()
        self._asked = asked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As a lock's."""
        if self._lock.acquire(blocking=False):
            return True
        if blocking:
            self._asked.set()
        return blocking and self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """As a lock's."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Interrupted(LruStore):
    """A store of which a test sees the steps that LruStore leaves to its subclasses, and does something around them."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._asides: dict[str, Callable[[Callable[[], None]], None]] = {}
        super().__init__(*arguments, **more)

    def around(self, step: str, aside: Callable[[Callable[[], None]], None] | None) -> None:
        """From now on (None: no more) `aside` is called in place of the step, and calls what it is given to do it."""
        self._asides.pop(step, None)
        if aside is not None:
            self._asides[step] = aside

    def _come_to(self, step: str, do: Callable[[], None]) -> None:
        aside = self._asides.get(step)
        do() if aside is None else aside(do)

    def _publish(self, record: Record) -> None:
        self._come_to("publish", partial(super()._publish, record))

    def _destroy(self, record: Record) -> None:
        self._come_to("destroy", partial(super()._destroy, record))

    def _unpublish(self, records: Sequence[Record]) -> None:
        self._come_to("unpublish", partial(super()._unpublish, records))

    def _keep_metadata(self, record: Record, metadata: bytes) -> None:
        self._come_to("keep metadata", partial(super()._keep_metadata, record, metadata))


class InterruptedMemoryStore(Interrupted, MemoryStore):
    """In memory."""


class InterruptedDirectoryStore(Interrupted, DirectoryStore):
    """In a directory."""


def before_or_after(moment: str, aside: Callable[[], object]) -> Callable[[Callable[[], None]], None]:
    """For around(): do something "before" or "after" the step."""

    def both(do: Callable[[], None]) -> None:
        if moment == "before":
            aside()
        do()
        if moment == "after":
            aside()

    return both


class Facts(NamedTuple):
    """One object of a store as a value; records are compared by identity."""

    key: bytes
    size_bytes: int
    version: int
    metadata: bytes = b""
    invalidated: bool = False


def facts_of(record: Record) -> Facts:
    """Return what a record says now."""
    return Facts(record.key, record.size_bytes, record.version, record.metadata, record.invalidated)


def objects_in(store: LruStore) -> list[Facts]:
    """Return all visible objects as values, the least recently used first."""
    return [facts_of(record) for record in store.records()]


def put(store: LruStore, key: bytes, body: bytes, metadata: bytes = b"") -> int:
    """Write one whole object and return its version."""
    writer = store.begin(key, len(body), metadata)
    try:
        writer.write(memoryview(body))
        return writer.commit()
    finally:
        writer.abort()


def opened(source: ObjectSource, key: bytes) -> StoredObject:
    """Open what must be there; the caller releases it."""
    stored = source.open(key)
    assert stored is not None
    return stored


def body_of(stored: StoredObject) -> bytes:
    """Read a pinned object whole, and see that nothing comes after its end."""
    body = bytearray(stored.size_bytes + 1)
    with memoryview(body) as view:
        length = os.preadv(stored.fd, [view], 0)
    return bytes(body[:length])


def get(source: ObjectSource, key: bytes) -> bytes | None:
    """Open, read and release; None for a miss."""
    stored = source.open(key)
    if stored is None:
        return None
    with stored:
        return body_of(stored)


@contextmanager
def unwritable_index() -> Iterator[None]:
    """Refuse all writes to the indexes of stores."""

    @contextmanager
    def refuse(_index: DirectoryIndex) -> Iterator[None]:
        raise StoreUnavailable("write to", "index", errno.ENOSPC)
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DirectoryIndex, "writing", refuse)
        yield


def rows_written(path: str) -> int:
    """Return how many objects the index of a store has, which a daemon may have open: they survive its kill."""
    with closing(sqlite3.connect(f"file:{path}/index.sqlite?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM objects").fetchone()[0])


@contextmanager
def started_after_a_kill(path: str) -> Iterator[DirectoryStore]:
    """Start a store on a copy of the directory as it is now: what a kill at this moment would have left."""
    with tempfile.TemporaryDirectory(prefix="store-after-a-kill-") as copies:
        copy = shutil.copytree(path, os.path.join(copies, "store"))
        store = DirectoryStore(copy, 1 << 30)
        store.settle()
        try:
            yield store
        finally:
            store.close()


def open_fds() -> dict[int, str]:
    """Return what every descriptor of this process points to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def run_script(script: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process of its own with the project importable."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
