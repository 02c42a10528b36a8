"""Exceptions of the library: the branch says whose fault it is, and fields carry the details."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import posix_ipc

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""Error numbers for "no descriptor left", in the process or the system."""


class ShmChannelError(Exception):
    """Base class; `hint` says what the operator can do about it."""

    hint = ""

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(ShmChannelError):
    """The caller's bug; not meant to be caught."""


class ResourceError(ShmChannelError):
    """The operating system refused; `errno` says why, and so does the text."""

    def __init__(self, text: str, code: int, *, hint: str | None = None, says_why: bool = False) -> None:
        """`says_why`: the text gives the reason already, so the system's message is omitted."""
        super().__init__(text if says_why or not code else f"{text}: {os.strerror(code)}", hint=hint)
        self.errno = code


class NameTaken(ResourceError):
    """The name exists already."""

    hint = "another process owns it, or a dead one left it: gfcache-clean removes what the dead left"


class NameMissing(ResourceError):
    """No such name."""


class LimitReached(ResourceError):
    """A limit of the system or of this user is reached."""

    hint = "see df /dev/shm, ulimit -n -q and /proc/sys/fs/mqueue; gfcache-leaks shows what is held"


class AccessDenied(ResourceError):
    """The name belongs to another user, or its mode forbids access."""


class PeerError(ShmChannelError):
    """The other process is at fault."""


class PeerGone(PeerError):
    """The other process has ended."""


class PeerProtocolError(PeerError):
    """The other process violated the protocol."""


class RequestFailed(PeerError):
    """The other process could not do what it was asked to."""

    hint = "the log of that process says why"


class LayoutMismatch(PeerError):
    """The block is not published, not of this layout version, or its numbers do not match its size."""


class VersionMismatch(PeerError):
    """The other process speaks another version of the commands."""

    hint = "install the same release of both"

    def __init__(self, who: str, theirs: int, ours: int) -> None:
        super().__init__(f"{who} speaks version {theirs} of the commands, and this process version {ours}")
        self.theirs = theirs
        self.ours = ours


class ChannelTimeout(ShmChannelError, TimeoutError):
    """A deadline passed."""


class PoolExhausted(ShmChannelError):
    """The queue for segments is full, or no segment is available: shed load."""


class CommandError(ShmChannelError, ValueError):
    """The bytes are not a command of this protocol version, or a value is out of range."""


_BY_ERRNO: dict[int, type[ResourceError]] = {
    errno.EEXIST: NameTaken,
    errno.ENOENT: NameMissing,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.ENOSPC: LimitReached,
    errno.EMFILE: LimitReached,
    errno.ENFILE: LimitReached,
    errno.ENOMEM: LimitReached,
    errno.EDQUOT: LimitReached,
}


@contextmanager
def os_errors(what: str, *, existential: int = errno.ENOENT) -> Iterator[None]:
    """Translate OSError and posix_ipc errors inside the block into a ResourceError whose text begins with `what`.

    posix_ipc has one error for "exists already" and "does not exist": `existential` says which one the block means.
    """
    try:
        yield
    except posix_ipc.ExistentialError as error:
        raise _BY_ERRNO[existential](what, existential) from error
    except posix_ipc.PermissionsError as error:
        raise AccessDenied(what, errno.EACCES) from error
    except posix_ipc.Error as error:
        raise ResourceError(f"{what}: {error}", 0) from error
    except OSError as error:
        # posix_ipc sets no errno when descriptors run out (EMFILE, ENFILE); its texts then speak of a number of files.
        code = error.errno or (errno.EMFILE if "number of" in str(error) else 0)
        raise _BY_ERRNO.get(code, ResourceError)(what if code else f"{what}: {error}", code) from error
