"""Spool: the body of one fetch on its way: one writer (the origin), any number of readers (clients, the fill).

The bytes lie in an unlinked temporary file, so that memory stays constant, a slow reader slows nobody, and nothing is
left after a kill. Written bytes never change: they may be sent with sendfile(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginError
from webproxy.http.fields import Fields
from webproxy.origin.response_head import OriginResponse

PUNCH_BYTES: Final = 4 << 20
"""Space is given back in aligned pieces of this size. What sendfile(2) took lies by reference in a socket until its
client has read it, and a hole that cuts a page (or a large folio) zeroes part of it in place, under that client."""

_PUNCH_HOLE_KEEP_SIZE = 0x03
_WAIT_SECONDS = 0.25
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class BodyFound:
    """The origin has the object; its length in bytes is known by now."""

    length: int


@dataclass(frozen=True, slots=True)
class BodyMissing:
    """The origin has no such object, or does not say."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP answer: its body is the spool's, of `response.length` bytes if that is known."""

    response: OriginResponse
    stored: StoredResponse
    """As it is stored or, when it is not, as it would be: what the answer is to the requests that share it."""
    is_shareable: bool
    """The rules allow to store it: it may serve others who asked while it was on its way."""
    is_stored: bool
    """It goes to the cache while it comes."""
    detail: bytes = b""
    """Why it is not stored."""
    completes: bool = False
    """The origin sends the rest only: the beginning was stored as an incomplete response."""


@dataclass(frozen=True, slots=True)
class Validated:
    """The origin said that this stored response still holds; its body is in the cache."""

    key: bytes
    stored: StoredResponse
    version: int
    held_bytes: int | None = None
    """Of an incomplete response: so many of its first bytes are there."""
    is_shareable: bool = True
    """The answer allows to keep it: it may serve others who asked while it was validated."""
    is_stored: bool = True
    """The cache has it as the answer updated it."""


Tell = Callable[[int, Fields], None]
"""What a reader does with an interim answer (1xx)."""

Answer = BodyFound | BodyMissing | Head | Validated


@dataclass(frozen=True, slots=True)
class SpooledPrefix:
    """The beginning of a body whose fetch is over; close() it."""

    fd: int
    written: int

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


class SpoolReader:
    """One reader's position; close() it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.position = 0

    @property
    def fd(self) -> int:
        """The file to send from."""
        return self._spool.fd

    def wait_answer(self, tell: Tell | None = None) -> Answer:
        """Wait for the origin's answer; a fetch has limits of its own and always ends.

        `tell` is given each interim answer that comes before it. What it raises comes out of here.

        Raises:
            OriginError: the fetch failed.
        """
        return self._spool.wait_answer(tell)

    def wait_available(self) -> int:
        """Wait until there are bytes beyond `position`; returns how many.

        Raises:
            BodyCutShort: the fetch failed in mid-body.
        """
        return self._spool.wait_beyond(self.position) - self.position

    def advance(self, count: int) -> None:
        """`count` bytes have been used."""
        self.position += count
        self._spool.notify()

    def detach(self) -> None:
        """Let the fetch run to its end though nobody reads it; the reader goes with it."""
        self._spool.keep(self)

    def close(self) -> None:
        """Leave; the last one out closes the file."""
        self._spool.leave(self)


class Spool:
    """Shared by the fetch that writes and the readers.

    The file is made at the first byte, and closes when the writer and all readers have left.
    """

    def __init__(self, directory: str | None) -> None:
        self.fd = -1
        self._directory = directory
        self._change = threading.Condition()
        self._readers: list[SpoolReader] = []
        self._answer: Answer | None = None
        self._error: OriginError | None = None
        self._written = 0
        self._ended = False
        self._punched = 0
        self._writing = True
        self._abandoned = False
        self._detached: SpoolReader | None = None
        self._interims: list[tuple[int, Fields]] = []

    # -- readers -------------------------------------------------------------------------------------------------
    def join(self) -> SpoolReader | None:
        """A reader from the first byte on; None when those bytes are gone already, or nobody fetches any more."""
        with self._change:
            closed = not (self._writing or self._readers)
            if closed or self._abandoned or self._punched or self._error is not None:
                return None
            reader = SpoolReader(self)
            self._readers.append(reader)
            return reader

    def wait_answer(self, tell: Tell | None = None) -> Answer:
        """See SpoolReader."""
        told = 0
        while True:
            with self._change:
                while self._answer is None and self._error is None and (tell is None or told == len(self._interims)):
                    self._change.wait(_WAIT_SECONDS)
                news = self._interims[told:]
                if tell is None or not news:
                    if self._answer is None:
                        assert self._error is not None
                        raise _once_more(self._error)
                    return self._answer
            told += len(news)
            for status, fields in news:  # without the lock: a client may take its time
                tell(status, fields)

    def wait_beyond(self, position: int) -> int:
        """See SpoolReader."""
        with self._change:
            while self._written <= position and not self._ended:
                self._change.wait(_WAIT_SECONDS)
            if self._written > position or self._error is None:
                return self._written
            raise BodyCutShort(str(self._error))

    def keep(self, reader: SpoolReader) -> None:
        """See SpoolReader.stay_behind()."""
        with self._change:
            if self._detached is None:
                self._detached = reader
                reader.position = 1 << 62  # ahead of everything: the writer never waits for it
            elif reader is not self._detached and reader in self._readers:  # one is enough
                self._readers.remove(reader)
            self._change.notify_all()
            if self._ended:
                self._leave_detached()
            self._close_if_unused()

    def _leave_detached(self) -> None:
        if self._detached is not None and self._detached in self._readers:
            self._readers.remove(self._detached)

    def notify(self) -> None:
        """A reader has moved on."""
        with self._change:
            self._change.notify_all()

    def leave(self, reader: SpoolReader) -> None:
        """See SpoolReader."""
        with self._change:
            if reader in self._readers and reader is not self._detached:
                self._readers.remove(reader)
            self._change.notify_all()
            self._close_if_unused()

    # -- the writer ----------------------------------------------------------------------------------------------
    @property
    def written(self) -> int:
        """Bytes of the body so far."""
        return self._written

    @property
    def answered(self) -> bool:
        """True once readers know the answer: from then on the fetch cannot start again."""
        return self._answer is not None

    @property
    def wanted(self) -> bool:
        """True while somebody reads."""
        return bool(self._readers)

    def abandon(self) -> bool:
        """True when nobody reads; from then on nobody can join, so that the fetch may be dropped."""
        with self._change:
            self._abandoned = self._abandoned or not self._readers
            return self._abandoned

    def interim(self, status: int, fields: Fields) -> None:
        """Tell the readers of an interim answer."""
        with self._change:
            self._interims.append((status, fields))
            self._change.notify_all()

    def answer(self, answer: Answer) -> None:
        """Tell the readers what the origin has."""
        with self._change:
            self._answer = answer
            self._change.notify_all()

    def write(self, data: bytes | memoryview) -> None:
        """Append to the body.

        Raises:
            OSError: the disk is full, or there is no descriptor left.
        """
        if self.fd < 0:
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                self.fd = os.dup(file.fileno())
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self.fd, view, self._written + len(data) - len(view)) :]
        with self._change:
            self._written += len(data)
            self._change.notify_all()

    def prefix(self) -> SpooledPrefix | None:
        """What has come so far, to be used after the end; None when part of it is gone already.

        Raises:
            OSError: there is no descriptor left.
        """
        return None if self.fd < 0 or self._punched else SpooledPrefix(os.dup(self.fd), self._written)

    def restart(self) -> None:
        """Forget the body: the fetch is tried again, and no reader knows of it yet."""
        with self._change:
            assert self._answer is None, "readers know the answer already"
            self._written = 0

    def lead(self, filled: int | None) -> int:
        """How far the body is ahead of its fastest reader (`filled`: the fill's position, if there is one)."""
        positions = [reader.position for reader in self._readers]
        if filled is not None:
            positions.append(filled)
        return self._written - max(positions, default=self._written)

    def wait_reader(self) -> None:
        """Wait a short while for a reader to move on."""
        with self._change:
            self._change.wait(_WAIT_SECONDS)

    def forget_read(self) -> None:
        """Give the disk space back that all readers have passed; from then on nobody can join."""
        with self._change:
            slowest = min((reader.position for reader in self._readers), default=self._written)
            slowest = min(slowest, self._written)
            start, end = self._punched, slowest - slowest % PUNCH_BYTES
            if end <= start:
                return
            self._punched = end
        _libc.fallocate(self.fd, _PUNCH_HOLE_KEEP_SIZE, start, end - start)  # best effort: not every file system can

    def end(self, error: OriginError | None = None) -> None:
        """The fetch is over; the writer leaves."""
        with self._change:
            self._ended, self._writing = True, False
            self._error = None if error is None else _once_more(error)
            self._leave_detached()
            self._change.notify_all()
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._writing and not self._readers and self.fd >= 0:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)


def _once_more(error: OriginError) -> OriginError:
    """The same error anew: one that several threads raised would gather the frames of all of them."""
    return type(error)(str(error), status=error.status, retryable=error.retryable)
