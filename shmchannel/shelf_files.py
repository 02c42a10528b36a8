"""ShelfFiles: the proxy's descriptors of large objects that lie on a hot shelf by reference.

A reference names a descriptor of the cache's process. It is opened anew for reading through /proc/PID/fd, which the
kernel allows between processes of one user, and only what is then the very file of the reference is kept. Where that
cannot be done (another PID namespace, a hardened host) the objects come by commands, as those that are not hot.

A file that was opened stays for KEEP_SECONDS after its last use, so that the next request needs no system call for it,
and for PAUSED_SECONDS after a use that is to go on. An object that has left the cache lives on for so long at most.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from stat import S_ISREG
from time import monotonic
from typing import NamedTuple

from shmchannel.shelf_layout import FileRef

log = logging.getLogger(__name__)

FILES_MAX = 64
KEEP_SECONDS = 2.0
PAUSED_SECONDS = 30.0


class FileName(NamedTuple):
    """What tells one object's file from all others for as long as one cache runs."""

    device: int
    inode: int
    version: int


class ShelfFile:
    """An open file: `size_bytes` bytes that never change, to be sent with sendfile(2). The descriptor is shared."""

    __slots__ = ("_table", "fd", "kept_until", "name", "size_bytes", "users")

    def __init__(self, table: ShelfFiles, name: FileName, fd: int, size_bytes: int) -> None:
        self._table = table
        self.name = name
        self.fd = fd
        self.size_bytes = size_bytes
        self.users = 0
        self.kept_until = 0.0

    def release(self, *, paused: bool = False) -> None:
        """The holder has done with it; `paused`: for now."""
        self._table.release(self, PAUSED_SECONDS if paused else KEEP_SECONDS)


def _is_meant(status: os.stat_result, reference: FileRef) -> bool:
    found = status.st_dev, status.st_ino, status.st_size
    return found == (reference.device, reference.inode, reference.size_bytes) and S_ISREG(status.st_mode)


class ShelfFiles:
    """Safe for many threads. What is in use is never closed; what is not, is closed by expire()."""

    def __init__(self, files_max: int = FILES_MAX) -> None:
        self._files_max = files_max
        self._lock = threading.Lock()
        self._files: OrderedDict[FileName, ShelfFile] = OrderedDict()
        self._refused_pid: int | None = None

    def hold(self, pid: int, reference: FileRef, version: int, still_there: Callable[[], bool]) -> ShelfFile | None:
        """The file of a reference that a cache, process `pid`, has on its shelf; release() it. None: not to be had.

        `still_there` is asked after the file was opened: the reference must not have been taken off before.
        """
        name = FileName(reference.device, reference.inode, version)
        return self.again(name) or self._open(pid, reference, name, still_there)

    def again(self, name: FileName) -> ShelfFile | None:
        """A file that is open still; release() it."""
        with self._lock:
            file = self._files.get(name)
            if file is not None:
                file.users += 1
                self._files.move_to_end(name)
            return file

    def release(self, file: ShelfFile, keep_s: float) -> None:
        """See ShelfFile.release(); the file stays open for another `keep_s` seconds."""
        kept_until = monotonic() + keep_s
        with self._lock:
            file.users -= 1
            file.kept_until = max(file.kept_until, kept_until)
            closes = not file.users and self._files.get(file.name) is not file
        if closes:
            os.close(file.fd)

    def _open(self, pid: int, reference: FileRef, name: FileName, still_there: Callable[[], bool]) -> ShelfFile | None:
        if pid == self._refused_pid:
            return None
        path = f"/proc/{pid}/fd/{reference.number}"
        try:
            # Looked at first: in another PID namespace it is a stranger's, and to open a device or a pipe does things.
            if not _is_meant(os.stat(path), reference):
                return None
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if still_there():
                self._refused_pid = pid
                log.debug("files of the cache cannot be opened", extra={"pid": pid, "reason": str(error)})
            return None
        if not _is_meant(os.fstat(fd), reference) or not still_there():
            os.close(fd)
            return None
        file = ShelfFile(self, name, fd, reference.size_bytes)
        file.users = 1
        surplus = self._enter(file)
        if surplus >= 0:
            os.close(surplus)
        return file

    def _enter(self, file: ShelfFile) -> int:
        """Keep a file for the next use; returns a descriptor to be closed in exchange, or -1."""
        with self._lock:
            if file.name in self._files:  # another thread was faster: this one closes with its only use
                return -1
            self._files[file.name] = file
            if len(self._files) <= self._files_max:
                return -1
            oldest = next((kept for kept in self._files.values() if not kept.users), None)
            if oldest is None:
                del self._files[file.name]
                return -1
            del self._files[oldest.name]
            return oldest.fd

    def expire(self) -> None:
        """Close what has not been used for its time; to be called every second or so."""
        now = monotonic()
        with self._lock:
            idle = [file for file in self._files.values() if not file.users and file.kept_until <= now]
            for file in idle:
                del self._files[file.name]
        for file in idle:
            os.close(file.fd)

    def forget(self) -> None:
        """The cache is another one, or gone: its files are used no more than they are now, and close then."""
        with self._lock:  # in one step: what came back to the table in between would never be closed
            idle = [file for file in self._files.values() if not file.users]
            self._files.clear()
        for file in idle:
            os.close(file.fd)
