"""Spool: the answer of one fetch on its way to its readers: one writer, any number of readers.

Theory of operation
===================

The body lies in an unlinked temporary file, so that memory stays constant, a slow reader slows nobody, and nothing is
left after a kill. The file is made with the first byte, and closed by whoever is the last to leave: the writer, when
the fetch is over, or a reader. Bytes that were written never change, so they may be sent with sendfile(2).

The writer goes through three phases, told apart by two values that are each set once:

    unanswered   readers wait for the answer; restart() may forget what was spooled, for nobody has seen it
    answered     the answer is final; readers take bytes as they come
    over         end() was called. Without an error everything is there; with one, readers get the bytes that are there
                 and BodyCutShort behind them, or the error itself if there was no answer

Readers may join at any time at which they can still get every byte: not once disk space was given back behind the
slowest reader, not after abandon(), which says that the fetch will be dropped because nobody reads, not after an error.
A reader that detaches leaves the fetch running in its stead: it counts as somebody who wants the body, is never waited
for, and holds no disk space.

Everything is under one condition, which is notified of every change. It is never held while anything else waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
import threading
from dataclasses import dataclass
from typing import Final

from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginError
from webproxy.http.fields import Fields
from webproxy.origin.response_head import OriginResponse

PUNCH_BYTES: Final = 4 << 20
"""Space is freed in aligned pieces of this size. Data taken by sendfile(2) is referenced by a socket until its client
has read it, and a hole that cuts a page (or a large folio) zeroes part of it in place, under that client.
"""

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
    """The origin has no such object, or refuses it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP response: its body is the spool's, of `response.length` bytes if known."""

    response: OriginResponse
    stored: StoredResponse
    """As it is stored or, if not, as it would be: its meaning for the requests that share it."""
    is_shareable: bool
    """The rules allow storing it: it may serve requests that arrived while it was being fetched."""
    is_stored: bool
    """It is handed to the cache as it arrives."""
    detail: bytes = b""
    """Why it is not stored."""
    completes: bool = False
    """The origin sends only the rest: the prefix was stored as an incomplete response."""


@dataclass(frozen=True, slots=True)
class Validated:
    """The origin has confirmed this stored response; its body is in the cache."""

    key: bytes
    stored: StoredResponse
    version: int
    held_bytes: int | None = None
    """Of an incomplete response: the number of bytes available."""
    is_shareable: bool = True
    """The response allows storing it: it may serve requests that arrived during the validation."""
    is_stored: bool = True
    """The cache has it as updated by the response."""


@dataclass(frozen=True, slots=True)
class Interim:
    """An interim response (1xx): there may be any number of them before the answer."""

    status: int
    fields: Fields


Answer = BodyFound | BodyMissing | Head | Validated


@dataclass(frozen=True, slots=True)
class SpooledPrefix:
    """The prefix of a body whose fetch is over; close() it."""

    fd: int
    written: int

    def close(self) -> None:
        """Release the file."""
        os.close(self.fd)


class SpoolReader:
    """One reader's position; close() it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._interims_seen = 0
        self.position = 0

    @property
    def fd(self) -> int:
        """The file to send from."""
        return self._spool.fd

    def wait_news(self) -> Interim | Answer:
        """Wait for the next interim response, or for the answer; a fetch has limits of its own and always ends.

        Raises:
            OriginError: the fetch failed.
        """
        news = self._spool.wait_news(self._interims_seen)
        self._interims_seen += isinstance(news, Interim)
        return news

    def wait_answer(self) -> Answer:
        """Wait for the answer, as wait_news() without interim responses."""
        while isinstance(news := self.wait_news(), Interim):
            pass
        return news

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
        """Leave, and let the fetch run to its end without a reader."""
        self._spool.leave(self, detached=True)

    def close(self) -> None:
        """Leave; the last user closes the file."""
        self._spool.leave(self)


class Spool:
    """Shared by the fetch that writes and the readers."""

    def __init__(self, directory: str | None) -> None:
        self.fd = -1
        self._directory = directory
        self._change = threading.Condition()
        self._readers: list[SpoolReader] = []
        self._answer: Answer | None = None
        self._interims: list[Interim] = []
        self._written = 0
        self._punched = 0
        self._is_over = False
        self._error: OriginError | None = None
        self._is_abandoned = False
        self._is_detached = False
        """A reader left the fetch running without it."""

    # -- readers -------------------------------------------------------------------------------------------------
    def join(self) -> SpoolReader | None:
        """A reader from the first byte on; None if those bytes are gone, or will not arrive."""
        with self._change:
            is_closed = self._is_over and not self._readers
            if is_closed or self._is_abandoned or self._punched or self._error is not None:
                return None
            reader = SpoolReader(self)
            self._readers.append(reader)
            return reader

    def wait_news(self, interims_seen: int) -> Interim | Answer:
        """See SpoolReader."""
        with self._change:
            while True:
                if interims_seen < len(self._interims):
                    return self._interims[interims_seen]
                if self._answer is not None:
                    return self._answer
                if self._error is not None:
                    raise _once_more(self._error)
                self._change.wait(_WAIT_SECONDS)

    def wait_beyond(self, position: int) -> int:
        """See SpoolReader."""
        with self._change:
            while self._written <= position and not self._is_over:
                self._change.wait(_WAIT_SECONDS)
            if self._written > position or self._error is None:
                return self._written
            raise BodyCutShort(str(self._error))

    def notify(self) -> None:
        """A reader has advanced."""
        with self._change:
            self._change.notify_all()

    def leave(self, reader: SpoolReader, *, detached: bool = False) -> None:
        """See SpoolReader.close() and SpoolReader.detach()."""
        with self._change:
            if reader in self._readers:
                self._readers.remove(reader)
                self._is_detached = self._is_detached or detached
            self._change.notify_all()
            self._close_if_unused()

    # -- the writer ----------------------------------------------------------------------------------------------
    @property
    def written(self) -> int:
        """Bytes of the body so far."""
        return self._written

    @property
    def answered(self) -> bool:
        """Whether the readers know the answer: the fetch cannot restart after that."""
        return self._answer is not None

    @property
    def wanted(self) -> bool:
        """Whether there is a reader, or one has left the fetch running."""
        return bool(self._readers) or (self._is_detached and not self._is_over)

    def abandon(self) -> bool:
        """Whether it is no longer needed; nobody can join after that, so the fetch may be dropped."""
        with self._change:
            self._is_abandoned = self._is_abandoned or not self.wanted
            return self._is_abandoned

    def interim(self, status: int, fields: Fields) -> None:
        """Pass an interim response to the readers."""
        with self._change:
            self._interims.append(Interim(status, fields))
            self._change.notify_all()

    def answer(self, answer: Answer) -> None:
        """Pass the answer to the readers."""
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
        """The bytes received so far, for use after the end; None if part of them is gone already.

        Raises:
            OSError: no descriptor is left.
        """
        return None if self.fd < 0 or self._punched else SpooledPrefix(os.dup(self.fd), self._written)

    def restart(self) -> None:
        """Discard the body: the fetch is tried again, and no reader knows of it yet."""
        with self._change:
            assert self._answer is None, "readers know the answer already"
            self._written = 0

    def lead(self, filled: int | None) -> int:
        """How far the body is ahead of its fastest reader (`filled`: the fill's position, if there is one).

        None if nobody reads, or nobody needs to be waited for.
        """
        positions = [reader.position for reader in self._readers]
        if self._is_detached:
            return 0
        if filled is not None:
            positions.append(filled)
        return self._written - max(positions, default=self._written)

    def wait_reader(self) -> None:
        """Wait a short while for a reader to advance."""
        with self._change:
            self._change.wait(_WAIT_SECONDS)

    def forget_read(self) -> None:
        """Free the disk space that all readers have passed; nobody can join after that."""
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
            self._is_over = True
            self._error = None if error is None else _once_more(error)
            self._change.notify_all()
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._is_over and not self._readers and self.fd >= 0:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)


def _once_more(error: OriginError) -> OriginError:
    """A copy of the error: one raised by several threads would accumulate the frames of all of them."""
    return type(error)(str(error), status=error.status, retryable=error.retryable)
