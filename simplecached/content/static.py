"""Read-only objects from ordinary files of somebody else: a directory tree, or the files named by a map.

A file stays open for the next reader. Each open() checks the file once (one ``stat``) and compares device, inode, size
and change time with the open one; if they differ the file is opened again. Readers of the older one keep it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import struct
import threading
import time
from typing import TYPE_CHECKING

from simplecached.content.beneath import READ_FLAGS, open_beneath
from simplecached.content.file_map import load_file_map
from simplecached.descriptors import OPEN_FILES_MAX, Descriptors
from simplecached.errors import ConfigError, StoreUnavailable
from simplecached.stores.open_files import Identity, OpenFile, OpenFiles
from simplecached.stores.store import StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_MAP_RECHECK_S = 0.25
_WORD_MASK = 2**64 - 1
_IDENTITY = struct.Struct("=4Q")
SETTLED_NS = 50_000_000  # several ticks of the clock with which file systems stamp changes
# Errors that mean "there is no such object": missing, outside the root, or not readable.
_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EXDEV,
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENXIO,
        errno.ENODEV,
    }
)


def identity_of(facts: os.stat_result) -> Identity:
    """Return what identifies a file and its content."""
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def version_of(identity: Identity) -> int:
    """Return the version of a file on disk: 64 bits, never 0, a hash of what changes with its content."""
    packed = _IDENTITY.pack(*(fact & _WORD_MASK for fact in identity))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big") or 1


class _PinnedFile(StoredObject):
    """A file that somebody else may rewrite in place while it is pinned."""

    __slots__ = ()

    def is_unchanged(self) -> bool:
        """Check the file behind the descriptor again."""
        facts = self._look()
        return facts is not None and version_of(identity_of(facts)) == self.version

    def recheck(self) -> Callable[[], bool]:
        """The file's identity, and the time: two writes within one tick of the file system's clock look like one."""
        return self._is_settled

    def _is_settled(self) -> bool:
        facts = self._look()
        if facts is None or version_of(identity_of(facts)) != self.version:
            return False
        return time.clock_gettime_ns(time.CLOCK_REALTIME) - facts.st_ctime_ns > SETTLED_NS

    def _look(self) -> os.stat_result | None:
        try:
            return os.fstat(self.fd)
        except OSError:  # a file on a network may be gone behind its descriptor
            return None


class _StaticFiles:
    """The open files of a static source by key; shared by both sources."""

    def __init__(self, files_max: int, descriptors: Descriptors | None) -> None:
        self._files: OpenFiles[bytes] = OpenFiles(files_max)
        self._descriptors = descriptors or Descriptors()
        self._descriptors.add_giver(self._files.drop_idle)
        self._release = self._files.release  # bound once: open() is the hot path

    def _open_anew(self, key: bytes, open_fd: Callable[[], int]) -> StoredObject | None:
        """Open a file to replace the one kept for this key, or forget the key if there is none left."""
        try:
            fd = self._descriptors.open(open_fd)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise StoreUnavailable("open", os.fsdecode(key), error.errno or errno.EIO) from error
            self._files.drop(key)
            return None
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            os.close(fd)
            self._files.drop(key)
            return None
        identity = identity_of(facts)
        file = OpenFile(key, fd, identity=identity, size_bytes=facts.st_size, version=version_of(identity))
        file = self._files.keep(file)
        return _PinnedFile(file.fd, file.size_bytes, file.version, b"", self._release, file)


class StaticDirectory(_StaticFiles):
    """The regular files below one directory; the key is the path below it, with a leading slash.

    Paths are taken literally: nothing is decoded, and symbolic links are refused in every component. The directory
    itself is opened once, so replacing it by renaming another into its place needs a restart.
    """

    def __init__(self, path: str, files_max: int = OPEN_FILES_MAX, *, descriptors: Descriptors | None = None) -> None:
        super().__init__(files_max, descriptors)
        try:
            self._root_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"cannot serve the directory {path}: {error.strerror}") from error

    def open(self, key: bytes) -> StoredObject | None:
        """Return the file of this key, pinned, or None; raises StoreUnavailable if it exists but cannot be read."""
        # The stat follows symbolic links in the directories above the file, which is harmless. Only a key that was
        # opened beneath the root before gets here, and the result is used only if it is the same inode, unchanged: then
        # the open file is that file, whichever way the name leads to it now. Anything else goes through openat2.
        file = self._files.peek(key)
        if file is not None:
            try:
                facts = os.stat(key[1:], dir_fd=self._root_fd, follow_symlinks=False)
            except OSError:
                facts = None
            if facts is not None and identity_of(facts) == file.identity and self._files.pin(file):
                return _PinnedFile(file.fd, file.size_bytes, file.version, b"", self._release, file)
        if not key.startswith(b"/"):
            self._files.drop(key)
            return None
        return self._open_anew(key, lambda: open_beneath(self._root_fd, key[1:]))

    def close(self) -> None:
        """Close everything that nobody reads; files being read close at their release. May be called twice."""
        self._files.close()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1


class FileMap(_StaticFiles):
    """The files named by a map (``locals.txt``), which is read again when it changes.

    The map is checked at most every ``recheck_s`` seconds, and at every miss. If it becomes invalid, this is logged
    once, and the previous map stays in use.
    """

    def __init__(
        self,
        path: str,
        files_max: int = OPEN_FILES_MAX,
        *,
        recheck_s: float = _MAP_RECHECK_S,
        clock: Callable[[], float] = time.monotonic,
        descriptors: Descriptors | None = None,
    ) -> None:
        super().__init__(files_max, descriptors)
        self._map_path = os.path.abspath(path)
        self._recheck_s = recheck_s
        self._clock = clock
        self._map_lock = threading.Lock()
        self._map_identity = self._look()
        self._paths = load_file_map(self._map_path, self._descriptors)
        self._recheck_at = clock() + recheck_s

    def open(self, key: bytes) -> StoredObject | None:
        """Return the file of this key, pinned, or None; raises StoreUnavailable if it exists but cannot be read."""
        if self._clock() >= self._recheck_at:
            self._refresh(wait=False)
        path = self._paths.get(key)
        if path is None:
            self._refresh(wait=True)
            path = self._paths.get(key)
            if path is None:
                self._files.drop(key)
                return None
        file = self._files.peek(key)
        if file is not None:
            try:
                facts = os.stat(path)
            except OSError:
                facts = None
            if facts is not None and identity_of(facts) == file.identity and self._files.pin(file):
                return _PinnedFile(file.fd, file.size_bytes, file.version, b"", self._release, file)
        found = path
        return self._open_anew(key, lambda: os.open(found, READ_FLAGS))

    def close(self) -> None:
        """Close everything that nobody reads; files being read close at their release. May be called twice."""
        self._files.close()

    def _look(self) -> Identity | None:
        try:
            return identity_of(os.stat(self._map_path))
        except OSError:
            return None

    def _refresh(self, *, wait: bool) -> None:
        """Read the map again if it has changed; without ``wait``, leave that to the thread that is doing it already."""
        if not self._map_lock.acquire(blocking=wait):
            return
        try:
            self._recheck_at = self._clock() + self._recheck_s
            identity = self._look()
            if identity == self._map_identity:
                return
            self._map_identity = identity  # also of an invalid one: it is not tried again before it changes again
            try:
                self._paths = load_file_map(self._map_path, self._descriptors)
            except ConfigError as error:
                log.error(
                    "map file refused, previous one stays in use", extra={"map": self._map_path, "reason": str(error)}
                )
                return
            for key in self._files.kept_keys():
                if key not in self._paths:
                    self._files.drop(key)
        finally:
            self._map_lock.release()


StaticSource = StaticDirectory | FileMap


def open_static(path: str, files_max: int = OPEN_FILES_MAX, *, descriptors: Descriptors | None = None) -> StaticSource:
    """Return the source for a directory or a file map; raises ConfigError if the path is neither."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise ConfigError(f"cannot serve {path}: {error.strerror}") from error
    if stat.S_ISDIR(facts.st_mode):
        return StaticDirectory(path, files_max, descriptors=descriptors)
    if stat.S_ISREG(facts.st_mode):
        return FileMap(path, files_max, descriptors=descriptors)
    raise ConfigError(f"cannot serve {path}: neither a directory nor a file map")
