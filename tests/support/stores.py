"""Small verbs for tests of sources and stores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from simplecached.directory_store import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simplecached.store import ObjectSource, ObjectStore, StoredObject

PROJECT = Path(__file__).resolve().parents[2]


class StoreFactory(Protocol):
    """Makes an empty store with these bounds; the fixture closes it."""

    def __call__(self, budget_bytes: int = ..., entries_max: int = ..., **more: Any) -> Any: ...


def put(store: ObjectStore, key: bytes, body: bytes, metadata: bytes = b"") -> int:
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
def started_after_a_kill(path: str) -> Iterator[DirectoryStore]:
    """Start a store on a copy of the directory as it is now: what a kill at this moment would have left."""
    with tempfile.TemporaryDirectory(prefix="store-after-a-kill-") as copies:
        copy = shutil.copytree(path, os.path.join(copies, "store"))
        store = DirectoryStore(copy, 1 << 30)
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
