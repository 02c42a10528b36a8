"""HotTableFiles: the proxy's descriptors of large objects that lie on a hot table by reference.

A reference names a descriptor of the cache's process. It is opened anew for reading through /proc/PID/fd, which the
kernel allows between processes of one user, and only what is then the very file of the reference is kept. Where that
cannot be done (another PID namespace, a hardened host) the objects come by commands, as those that are not hot.

A file that was opened stays for KEEP_SECONDS after it was last asked for, so that the next request needs no system
call for it, and for PAUSED_SECONDS when its user says that it goes on later. An object that has left the cache lives on
for so long at most. A descriptor is closed when the last one that holds its HotTableFile lets go of it, never before.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from stat import S_ISREG
from time import monotonic
from typing import NamedTuple

from shmchannel.errors import OUT_OF_DESCRIPTORS
from shmchannel.objects.hot_table_layout import FileRef

log = logging.getLogger(__name__)

_PASSING = OUT_OF_DESCRIPTORS | {errno.ENOMEM}  # what this process lacks at the moment says nothing of the cache
FILES_MAX = 64
KEEP_SECONDS = 2.0
PAUSED_SECONDS = 30.0


class FileName(NamedTuple):
    """What tells one object's file from all others for as long as one cache runs."""

    device: int
    inode: int
    version: int


class HotTableFile:
    """An open file: `size_bytes` bytes that never change, to be sent with sendfile(2). The descriptor is shared.

    It is closed with this object: whoever sends from it keeps this object, not the number.
    """

    __slots__ = ("_table", "fd", "generation", "kept_until", "name", "size_bytes")

    def __init__(self, table: HotTableFiles, generation: int, name: FileName, fd: int, size_bytes: int) -> None:
        """Take over the descriptor."""
        self._table = table
        self.generation = generation
        self.name = name
        self.fd = fd
        self.size_bytes = size_bytes
        self.kept_until = 0.0

    def keep_paused(self) -> None:
        """Its user goes on later, and asks for it by again() then."""
        self._table.keep(self, PAUSED_SECONDS)

    def __del__(self) -> None:
        """Nobody has it any more."""
        os.close(self.fd)


def _is_meant(status: os.stat_result, reference: FileRef) -> bool:
    found = status.st_dev, status.st_ino, status.st_size
    return found == (reference.device, reference.inode, reference.size_bytes) and S_ISREG(status.st_mode)


class HotTableFiles:
    """Safe for many threads. `files_max` files are kept; more can be open while they are in use."""

    def __init__(self, files_max: int = FILES_MAX) -> None:
        self._files_max = files_max
        self._lock = threading.Lock()
        self._files: OrderedDict[FileName, HotTableFile] = OrderedDict()
        self._generation = 0
        self._refused_pid: int | None = None

    def hold(self, pid: int, reference: FileRef, version: int, still_there: Callable[[], bool]) -> HotTableFile | None:
        """The file of a reference that a cache, process `pid`, has on its hot table; None: not to be had.

        `still_there` is asked after the file was opened: the reference must not have been taken off before.
        """
        name = FileName(reference.device, reference.inode, version)
        return self.again(name) or self._open(pid, reference, name, still_there)

    def again(self, name: FileName) -> HotTableFile | None:
        """A file that is kept still."""
        with self._lock:
            file = self._files.get(name)
        if file is not None:
            self.keep(file)
        return file

    def keep(self, file: HotTableFile, seconds: float = KEEP_SECONDS) -> None:
        """Have the file for again() for so long from now; the least recently kept one gives way, if one must."""
        surplus = None
        kept_until = monotonic() + seconds
        with self._lock:
            if file.generation != self._generation:
                return
            file = self._files.setdefault(file.name, file)  # another thread may have been faster
            file.kept_until = max(file.kept_until, kept_until)
            self._files.move_to_end(file.name)
            if len(self._files) > self._files_max:
                surplus = self._files.popitem(last=False)
        del surplus  # closed without the lock, if nobody has it

    def _open(
        self, pid: int, reference: FileRef, name: FileName, still_there: Callable[[], bool]
    ) -> HotTableFile | None:
        if pid == self._refused_pid:
            return None
        generation = self._generation
        path = f"/proc/{pid}/fd/{reference.number}"
        try:
            # Looked at first: in another PID namespace it is a stranger's, and to open a device or a pipe does things.
            if not _is_meant(os.stat(path), reference):
                return None
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in _PASSING and still_there():
                self._refused_pid = pid
                log.debug("files of the cache cannot be opened", extra={"pid": pid, "reason": str(error)})
            return None
        file = HotTableFile(self, generation, name, fd, reference.size_bytes)
        if not _is_meant(os.fstat(fd), reference) or not still_there():
            return None
        self.keep(file)
        return file

    def expire(self) -> None:
        """Let go of what has not been asked for in its time; to be called every second or so."""
        now = monotonic()
        with self._lock:
            over = [file for file in self._files.values() if file.kept_until <= now]
            for file in over:
                del self._files[file.name]

    def forget(self) -> None:
        """The cache is another one, or gone: its files are given to nobody any more."""
        with self._lock:
            files, self._files = self._files, OrderedDict()
            self._generation += 1
            self._refused_pid = None  # in containers the next cache may have the same
        del files
