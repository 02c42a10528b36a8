"""HotTableFiles: descriptors of objects that are in a hot table by reference.

A reference names a descriptor of the writing process: the file's, or that of a directory with the file's name below it.
The file is opened for reading through /proc/PID/fd, which the kernel allows between processes of one user, and kept
only if it is the very file of the reference. Where that does not work (another PID namespace, a hardened host) the
objects are requested by commands like all others.

At most `open_max` files are open in all, kept or in use. Beyond that objects are requested by commands.

An open file is kept for KEEP_SECONDS after its last use, so that the next request needs no system call for it, and for
PAUSED_SECONDS when its user says that it will return. An object that has left the cache lives on for that long at most.
A descriptor is closed when the last holder of its HotTableFile lets go of it, never before.
"""

from __future__ import annotations

import errno
import itertools
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
OPEN_MAX = 1024
KEEP_SECONDS = 2.0
PAUSED_SECONDS = 30.0


class FileName(NamedTuple):
    """Identifies one object's file among all others of one writer."""

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
        """Keep it longer: its user pauses, and will ask for it by again()."""
        self._table.keep(self, PAUSED_SECONDS)

    def __del__(self) -> None:
        """No holder is left."""
        os.close(self.fd)
        self._table.note_closed()


def _is_meant(status: os.stat_result, reference: FileRef) -> bool:
    found = status.st_dev, status.st_ino, status.st_size
    return found == (reference.device, reference.inode, reference.size_bytes) and S_ISREG(status.st_mode)


class HotTableFiles:
    """Thread-safe. `files_max` files are kept; up to `open_max` can be open while they are in use."""

    def __init__(self, files_max: int = FILES_MAX, open_max: int = OPEN_MAX) -> None:
        self._files_max = files_max
        self._open_max = open_max
        self._opened = itertools.count(1)  # counted so, a step of any thread is never lost
        self._closed = itertools.count(1)
        self._opened_total = self._closed_total = 0
        self._lock = threading.Lock()
        self._files: OrderedDict[FileName, HotTableFile] = OrderedDict()
        self._generation = 0
        self._refused_pid: int | None = None

    def hold(self, pid: int, reference: FileRef, version: int, still_there: Callable[[], bool]) -> HotTableFile | None:
        """The file of a reference in the hot table of process `pid`; None if it cannot be opened.

        `still_there` is asked after the file was opened: the reference must not have been taken off before.
        """
        name = FileName(reference.device, reference.inode, version)
        return self.again(name) or self._open(pid, reference, name, still_there)

    def again(self, name: FileName) -> HotTableFile | None:
        """A file that is still kept."""
        with self._lock:
            file = self._files.get(name)
        if file is not None:
            self.keep(file)
        return file

    def adopt(self, fd: int, version: int) -> HotTableFile:
        """Take over the descriptor of an object's file that somebody else has opened, whatever number is open; keep it.

        For a user who pauses.
        """
        status = os.fstat(fd)
        self._opened_total = max(self._opened_total, next(self._opened))
        name = FileName(status.st_dev, status.st_ino, version)
        file = HotTableFile(self, self._generation, name, fd, status.st_size)
        file.keep_paused()
        return file

    def note_closed(self) -> None:
        """A file was closed; takes no lock, for it comes from wherever the last holder lets go."""
        self._closed_total = max(self._closed_total, next(self._closed))

    def keep(self, file: HotTableFile, seconds: float = KEEP_SECONDS) -> None:
        """Keep the file for again() for this long; the least recently kept one gives way, if one must."""
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

    def read(self, pid: int, reference: FileRef, still_there: Callable[[], bool]) -> bytes | None:
        """The bytes of a small file, which is not kept; None if it cannot be read. May wait for the disk."""
        fd = self._open_fd(pid, reference, still_there)
        if fd is None:
            return None
        try:
            body = os.pread(fd, reference.size_bytes, 0)
        except OSError:
            return None
        finally:
            os.close(fd)
        return body if len(body) == reference.size_bytes else None

    def _open(
        self, pid: int, reference: FileRef, name: FileName, still_there: Callable[[], bool]
    ) -> HotTableFile | None:
        if self._opened_total - self._closed_total >= self._open_max:
            return None
        generation = self._generation
        fd = self._open_fd(pid, reference, still_there)
        if fd is None:
            return None
        self._opened_total = max(self._opened_total, next(self._opened))
        file = HotTableFile(self, generation, name, fd, reference.size_bytes)
        self.keep(file)
        return file

    def _open_fd(self, pid: int, reference: FileRef, still_there: Callable[[], bool]) -> int | None:
        """Open exactly the file of a reference."""
        if pid == self._refused_pid:
            return None
        path, flags = f"/proc/{pid}/fd/{reference.number}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            if reference.name:
                fd = os.open(f"{path}/{os.fsdecode(reference.name)}", flags | os.O_NOFOLLOW)
            else:
                # Looked at first: in another PID namespace it is a stranger's, and to open a pipe does things.
                if not _is_meant(os.stat(path), reference):
                    return None
                fd = os.open(path, flags)
        except OSError as error:
            is_lost = bool(reference.name) and error.errno == errno.ENOENT  # somebody has deleted this file
            if error.errno not in _PASSING and not is_lost and still_there():
                self._refused_pid = pid
                log.debug("files of the cache cannot be opened", extra={"pid": pid, "reason": str(error)})
            return None
        if _is_meant(os.fstat(fd), reference) and still_there():
            return fd
        os.close(fd)
        return None

    def expire(self) -> None:
        """Drop expired files; to be called about once a second."""
        now = monotonic()
        with self._lock:
            over = [file for file in self._files.values() if file.kept_until <= now]
            for file in over:
                del self._files[file.name]

    def forget(self) -> None:
        """The writer is gone, or is another one: again() returns none of its files."""
        with self._lock:
            files, self._files = self._files, OrderedDict()
            self._generation += 1
            self._refused_pid = None  # in containers the next cache may have the same
        del files
