"""Directory layout of a DirectoryStore, and the lock that excludes a second process.

simplecached.lock   locked while a process uses the directory; contains its pid
index.sqlite        maps files to objects (directory_index.py)
tmp/                bodies being written; emptied at every start
objects/00 .. ff/   complete bodies, named by a hash of the key and by the version, never by the key itself
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from simplecached.errors import StartupError, startup_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from simplecached.stores.directory_rows import Row

_LOCK_NAME = "simplecached.lock"
_INDEX_NAME = "index.sqlite"
_FLOCK = struct.Struct("@hhqqi0q")  # type, whence, start, length, pid; padded as the C structure is
_OBJECT_NAME = re.compile("[0-9a-f]{32}-[0-9a-f]{16}")


class DirectoryLayout:
    """The directories and names below one store directory."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.index_path = os.path.join(self.directory, _INDEX_NAME)
        self._temporary = os.path.join(self.directory, "tmp")
        self._objects = os.path.join(self.directory, "objects")

    def acquire(self) -> int:
        """Create the directory if needed, in an existing parent, and lock it.

        Returns the lock's descriptor, which releases the lock when closed.

        Raises StartupError if another process holds it, or the directory is not writable, or is neither empty nor a
        store: somebody else's files are never touched.
        """
        with startup_errors("use the store directory", self.directory):
            if not os.path.isdir(self.directory):
                os.mkdir(self.directory, mode=0o700)  # the parent is the operator's: a misspelt path is not created
            names = set(os.listdir(self.directory)) - {"lost+found"}
            if names and _LOCK_NAME not in names:
                raise StartupError(
                    f"the directory {self.directory} is not empty and contains no store",
                    hint="name an empty directory, or one that does not exist yet",
                )
            if stat.S_IMODE(os.stat(self.directory).st_mode) & 0o077:
                os.chmod(self.directory, 0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(os.path.join(self.directory, _LOCK_NAME), flags, 0o600)
        try:
            self._lock(fd)
            self._make_folders()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def temporary_path(self, number: int) -> str:
        """Return the path for a body being written."""
        return os.path.join(self._temporary, f"{number:x}")

    def object_name(self, key: bytes, version: int) -> str:
        """Return the file name of a complete body."""
        return f"{hashlib.blake2b(key, digest_size=16).hexdigest()}-{version:016x}"

    def object_path(self, name: str) -> str:
        """Return the path of a complete body by its name."""
        return os.path.join(self._objects, name[:2], name)

    def name_below_objects(self, path: str) -> str:
        """Return the name of a complete body as seen from open_objects()."""
        return path[len(self._objects) + 1 :]

    def open_objects(self) -> int:
        """Open the directory of all complete bodies; the descriptor is the caller's, and good for looking up names."""
        with startup_errors("open", self._objects):
            return os.open(self._objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def empty_temporary(self) -> int:
        """Remove every unfinished body and return the number; only under the lock, before the first write."""
        count = 0
        with startup_errors("empty", self._temporary), os.scandir(self._temporary) as found:
            for item in found:
                os.unlink(item.path)
                count += 1
        return count

    def shards(self) -> Iterator[str]:
        """Yield the names of the folders of complete bodies."""
        return _shards()

    def names_in(self, shard: str) -> list[tuple[str, int]]:
        """Return name and version of every complete body in a folder; files with other names are ignored."""
        folder = os.path.join(self._objects, shard)
        with startup_errors("read", folder):
            return [(name, int(name[33:], 16)) for name in os.listdir(folder) if _is_object_name(name, shard)]

    def has_object(self, row: Row) -> bool:
        """Return whether the file of a row exists."""
        return os.path.lexists(self.object_path(self.object_name(row.key, row.version)))

    def remove_objects(self, names: Collection[str]) -> int:
        """Remove complete bodies by name and return how many; some may be gone already."""
        count = 0
        with startup_errors("remove old objects from", self._objects):
            for name in names:
                with suppress(FileNotFoundError):
                    os.unlink(self.object_path(name))
                    count += 1
        return count

    def _lock(self, fd: int) -> None:
        # Held by the open file description: unlike a classic record lock it survives closing another descriptor of the
        # file, and the kernel releases it when the holder dies.
        whole_file = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole_file)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise StartupError(f"cannot lock {self.directory}: {error.strerror}") from error
            content = os.pread(fd, 32, 0).strip().decode("ascii", "replace")
            holder = f"process {content}" if content.isdigit() else "another process"
            hint = "stop that process, or name another directory"
            raise StartupError(f"store directory {self.directory} is in use by {holder}", hint=hint) from error
        with startup_errors("write the lock file in", self.directory):
            # Written before it is truncated: a full disk then never leaves an empty file behind.
            os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))

    def _make_folders(self) -> None:
        with startup_errors("create the directories of the store in", self.directory):
            os.makedirs(self._temporary, mode=0o700, exist_ok=True)
            os.makedirs(self._objects, mode=0o700, exist_ok=True)  # separately: the mode does not apply to parents
            for shard in _shards():
                os.makedirs(os.path.join(self._objects, shard), mode=0o700, exist_ok=True)


def _shards() -> Iterator[str]:
    return (f"{number:02x}" for number in range(256))


def _is_object_name(name: str, shard: str) -> bool:
    return name.startswith(shard) and _OBJECT_NAME.fullmatch(name) is not None
