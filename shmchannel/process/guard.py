"""ProcessGuard and GuardWatch: a lock file that the kernel releases when its holder dies.

Byte 0 of the file is locked by the owner for its whole life (and by a sweeper while it cleans up), byte 1 from the
moment it is ready to serve until it begins to stop. New work is sent only to a process that is ready; work under way
continues while the owner lives. The locks are open-file-description locks (fcntl(2), F_OFD_SETLK): a classic lock would
vanish when any descriptor of the file is closed in the process, and heartbeats detect "stuck", not "dead". Children
inherit the descriptor's lock across fork, so it is close-on-exec, and forking happens before a guard is acquired.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import closing
from time import sleep
from typing import Self

from shmchannel.deadline import Deadline
from shmchannel.errors import AccessDenied, NameTaken, ResourceError, os_errors
from shmchannel.process.identity import own_identity, user_text

_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, pid
_OWNED, _READY = 0, 1
_OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

SWEEP_SECONDS = 0.5
"""How long a new owner waits for a sweeper, which holds a guard for a moment and is never ready."""

_LOOK_AGAIN_SECONDS = 0.01


def _lock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


_ASK_READY = _lock(fcntl.F_WRLCK, _READY)
_ASK_OWNED = _lock(fcntl.F_WRLCK, _OWNED)


def _try_lock(fd: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, byte))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_locked(fd: int, question: bytes) -> bool:
    try:
        kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))[0]
    except OSError:  # another thread has closed the watch: for us the owner is not alive
        return False
    return kind != fcntl.F_UNLCK


def _is_file(path: str, fd: int) -> bool:
    return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))


def _open(path: str, flags: int) -> int:
    with os_errors(f"open guard {path}"):
        try:
            return os.open(path, flags, 0o600)
        except PermissionError:
            uid = os.stat(path, follow_symlinks=False).st_uid
            if uid == os.geteuid():
                raise
            raise _denied(path, uid) from None


def _denied(path: str, uid: int) -> AccessDenied:
    return AccessDenied(
        f"guard {path} belongs to {user_text(uid)}, and this process to {user_text(os.geteuid())}",
        errno.EACCES,
        hint="run both daemons as one user, or choose another queue name (-q)",
        says_why=True,
    )


def read_holder(path: str) -> int | None:
    """The pid written in the guard file; None if there is none. It may be dead: see GuardWatch.alive()."""
    try:
        with open(path, "rb") as file:
            return int(file.read(64).split()[0])
    except (OSError, ValueError, IndexError):
        return None


def read_ready(path: str) -> bool:
    """Whether a process that accepts new work holds the guard at `path` now."""
    try:
        with closing(GuardWatch(path)) as watch:
            return watch.ready()
    except ResourceError:
        return False


class ProcessGuard:
    """The owner's side: created by acquire(), released by close() or by the kernel."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, path: str, *, signed: bool = True, create: bool = True) -> Self:
        """Create or take over the guard file and lock it.

        `signed` writes our pid into it; a sweeper does not, because /dev/shm may be full of what it came to remove, and
        never blocks. An owner waits up to SWEEP_SECONDS for a holder that is not ready: a sweep anywhere on the machine
        may come upon the new file before it is locked. Without `create` only an existing file is taken over.

        Raises:
            NameTaken: a living process holds it (the text names its pid).
            NameMissing: there is none, and it is not to be created.
            AccessDenied: the file belongs to another user, who is named in the text.
        """
        patience = Deadline.after(SWEEP_SECONDS if signed else 0)
        while True:
            try:
                guard = cls._try_acquire(path, signed=signed, create=create)
            except NameTaken:
                if patience.expired or read_ready(path):
                    raise
                sleep(_LOOK_AGAIN_SECONDS)
            else:
                if guard is not None:
                    return guard

    @classmethod
    def _try_acquire(cls, path: str, *, signed: bool, create: bool) -> Self | None:
        fd = _open(path, _OPEN_FLAGS | (os.O_CREAT if create else 0))
        try:
            if cls._lock_linked(path, fd):
                if signed:
                    cls._sign(path, fd)
                return cls(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last owner unlinked the file between our open and our lock: try again
        return None

    @classmethod
    def _sign(cls, path: str, fd: int) -> None:
        try:
            with os_errors(f"write guard {path}"):
                cls._write(fd)
        except BaseException:
            os.unlink(path)  # locked and linked, so ours to remove: leave no empty one on a full file system
            raise

    @staticmethod
    def _lock_linked(path: str, fd: int) -> bool:
        if os.fstat(fd).st_uid != os.geteuid():
            raise _denied(path, os.fstat(fd).st_uid)
        if not _try_lock(fd, _OWNED):
            raise NameTaken(
                f"{path} is held by process {read_holder(path) or 'unknown'}",
                errno.EEXIST,
                hint="it is alive: stop it first",
            )
        return os.fstat(fd).st_nlink > 0

    def announce(self, text: str) -> None:
        """Say something about the owner in the file, for who opens it; to be called before set_ready()."""
        with os_errors(f"write guard {self.path}"):
            self._write(self._fd, text)

    @staticmethod
    def _write(fd: int, text: str = "") -> None:
        identity = own_identity()
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{identity.pid} {identity.start_time} {text}".rstrip().encode() + b"\n", 0)

    def set_ready(self) -> None:
        """From now on watchers see a living, serving process."""
        with os_errors(f"lock guard {self.path}"):
            _try_lock(self._fd, _READY)

    def set_stopping(self) -> None:
        """From now on no new work arrives, while the name remains ours until close()."""
        if self._fd >= 0:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, _READY))

    def close(self) -> None:
        """Remove the file and release the lock; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if _is_file(self.path, fd):  # otherwise removed by hand, and perhaps created anew
                    os.unlink(self.path)
            except FileNotFoundError:
                pass
            finally:
                os.close(fd)


class GuardWatch:
    """The watcher's side: whether the guard's owner is alive, and whether it is ready."""

    def __init__(self, path: str) -> None:
        """Open the guard file.

        Raises:
            NameMissing: there is none: no owner ever started, or it stopped cleanly.
            AccessDenied: it belongs to another user, who is named in the text.
        """
        self.path = path
        self._fd = _open(path, _OPEN_FLAGS)

    def check_user(self) -> None:
        """Raise AccessDenied if the owner is another user, although this process may open the file, as root may."""
        uid = os.fstat(self._fd).st_uid
        if uid != os.geteuid():
            raise _denied(self.path, uid)

    def alive(self) -> bool:
        """Whether the owner holds the guard, ready or not; one fcntl call."""
        return self._fd >= 0 and _is_locked(self._fd, _ASK_OWNED)

    def ready(self) -> bool:
        """Whether the owner accepts new work: neither starting nor stopping; one fcntl call."""
        return self._fd >= 0 and _is_locked(self._fd, _ASK_READY)

    def announced(self) -> str:
        """The owner's announcement, see ProcessGuard.announce(); empty if there is none."""
        try:
            return b" ".join(os.pread(self._fd, 256, 0).split()[2:]).decode("ascii", "replace")
        except OSError:
            return ""

    def describe(self) -> str:
        """The owner's pid and the guard, for error messages."""
        return f"process {read_holder(self.path) or 'unknown'} ({self.path})"

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
