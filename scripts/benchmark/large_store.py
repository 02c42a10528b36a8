"""Makes a store directory of many small objects: rows and files written directly, without a sync."""

import os
import time

from simplecached.stores.directory_index import DirectoryIndex
from simplecached.stores.directory_layout import DirectoryLayout
from simplecached.stores.directory_rows import Row

KEY_PREFIX = b"http://artifacts.example/builds/"
BODY_BYTES = 100
METADATA = b"m" * 300
"""As long as those of a response with the usual fields."""
_ROWS_AT_ONCE = 10_000


def key_of(number: int) -> bytes:
    """The key of an object: with a host and a path, as long as usual."""
    return KEY_PREFIX + b"%08d/app.tar" % number


def make_store(directory: str, count: int) -> None:
    """Make a store of `count` objects; the first is the least recently used. Blocks for a minute or more for a million.

    Raises:
        StartupError, StoreUnavailable: the directory cannot be written, or is in use.
    """
    layout = DirectoryLayout(directory)
    lock_fd = layout.acquire()
    try:
        index = DirectoryIndex(layout.index_path)
        first_version = time.time_ns() - count
        for start in range(0, count, _ROWS_AT_ONCE):
            numbers = range(start, min(count, start + _ROWS_AT_ONCE))
            with index.writing() as batch:
                batch.add(
                    [
                        Row(first_version + number, key_of(number), BODY_BYTES, METADATA, number + 1, 0, 0)
                        for number in numbers
                    ]
                )
            index.checkpoint()
            for number in numbers:
                _write_body(layout.object_path(layout.object_name(key_of(number), first_version + number)), number)
        index.close()
    finally:
        os.close(lock_fd)


def body_of(number: int) -> bytes:
    """The body of an object."""
    return (b"%08d" % number).ljust(BODY_BYTES, b".")


def _write_body(path: str, number: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, body_of(number))
    finally:
        os.close(fd)
