"""Spool: the answer of one fetch on its way to its readers: one writer, any number of readers.

Theory of operation
===================

A small body lies in memory (of those that are not tiny, so many at once as the budget has places), a larger one in a
temporary file without a name, so that memory stays bounded, a slow reader slows nobody, and nothing is left after a
kill. The file is made when the body outgrows the memory, and closed by
whoever is the last to leave: the writer, when the fetch is over, or a reader. Bytes that were written never change, so
they may be sent with sendfile(2).

The writer goes through three phases, told apart by two values that are each set once:

    unanswered   readers get no answer; restart() may forget what was spooled, for nobody has seen it
    answered     the answer is final; readers take bytes as they come
    over         end() was called. Without an error everything is there; with one, readers get the bytes that are there
                 and BodyCutShort behind them, or the error itself if there was no answer

Readers may join at any time at which they can still get every byte: not once disk space was given back behind the
slowest reader, not after abandon(), which says that the fetch will be dropped because nobody reads, not after seal(),
which says that only those may have it who asked before, not after an error.
A reader that detaches leaves the fetch running in its stead: it counts as somebody who wants the body, is never waited
for, and holds no disk space.

Each spool may run a window ahead of its fastest reader, and beyond that, ahead of all of them, as far as it gets room
from the budget of all spools (spool_budget.py). So a slow reader keeps no origin waiting while there is room.

If the file cannot be made or written (a full disk, no descriptor), what comes from then on stays in memory, and goes
with its last reader: there is room for IN_MEMORY_BYTES, ahead of the slowest reader, and nobody can join once a byte is
gone. So the readers get all of it, at the pace of the slowest, and the cache gets what fits.

Readers never wait in a thread: a reader without progress leaves a callback, which is called once, by whoever makes the
progress. Nor does the writer, which is told in the same way when there is room. Everything is under one lock, which is
never held while anything waits, nor while a callback is called.

Long because the answers that pass through it are here too: they mean nothing without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from shmchannel.errors import OUT_OF_DESCRIPTORS
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginError
from webproxy.fetch.spool_budget import GRANT_BYTES, NO_BUDGET, SpoolBudget, Wake
from webproxy.fetch.strand import Errand
from webproxy.http.fields import Fields
from webproxy.origin.response_head import OriginResponse
from webproxy.transport.client_stream import ClientStream

log = logging.getLogger(__name__)

MEMORY_BYTES_MAX: Final = 65_536
"""A body up to this size needs no file, which would cost more than its transfer."""
TINY_BYTES_MAX: Final = 16_384
"""Beyond this size it takes one of the places in memory that the budget has; without one it gets a file."""
IN_MEMORY_BYTES: Final = 131_072
"""Room for a body whose file cannot be written; a piece more may be there."""
PUNCH_BYTES: Final = 4 << 20
"""Space is freed in aligned pieces of this size. Data taken by sendfile(2) is referenced by a socket until its client
has read it, and a hole that cuts a page (or a large folio) zeroes part of it in place, under that client.
"""

_PUNCH_HOLE_KEEP_SIZE = 0x03
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class BodyFound:
    """The origin has the object; its length in bytes is known by now."""

    length: int
    stored: StoredResponse | None = field(default=None, compare=False)
    """What it is stored with, or would be."""


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
    is_common: bool = False
    """It may serve requests that had come before it, though it is stale from the start, or a failure and not stored."""

    @property
    def is_common_failure(self) -> bool:
        """Whether whoever asks a moment later would probably be told the same."""
        return self.is_common and self.response.status >= 400


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


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The response to a request that was forwarded for one client alone."""

    response: OriginResponse


Answer = BodyFound | BodyMissing | Head | Validated | Forwarded


@dataclass(frozen=True, slots=True)
class SpooledPrefix:
    """The prefix of a body whose fetch is over; close() it."""

    fd: int
    written: int

    def read_into(self, views: Sequence[memoryview], offset: int) -> int:
        """As Spool.read_into()."""
        return os.preadv(self.fd, views, offset)

    def close(self) -> None:
        """Release the file."""
        os.close(self.fd)


class SpoolReader:
    """One reader's position; close() it. None of its methods waits: as a Signal it tells when there is progress."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.interims_seen = 0
        self.is_told = False
        """It knows the answer, and waits for the body."""
        self.wake: Callable[[], None] | None = None
        self.position = 0
        self.runs_errands = False
        """Whoever reads takes the errand that the fetch leaves at its end, and keeps it waiting for nobody."""

    def read(self, count: int) -> bytes:
        """Up to so many of the bytes that are available."""
        data = self._spool.in_memory(self.position, count)
        return os.pread(self._spool.fd, count, self.position) if data is None else data

    def take_whole(self, length: int) -> bytes | None:
        """All of a body of this length, if it lies in memory and nothing of it has been used; it counts as used."""
        if self.position or self._spool.written < length or length > MEMORY_BYTES_MAX:
            return None
        data = self._spool.in_memory(0, length)
        if data:
            self.advance(length)
        return data

    def send(self, stream: ClientStream, count: int) -> int:
        """Send so many of the bytes that are available; returns how many the client accepted.

        Raises:
            ClientGone: the connection is closed or broken.
        """
        data = self._spool.in_memory(self.position, count)
        return stream.send_file(self._spool.fd, self.position, count) if data is None else stream.send_some(data)

    def news(self) -> Interim | Answer | None:
        """The next interim response, or the answer; None while there is neither.

        Raises:
            OriginError: the fetch failed.
        """
        return self._spool.news(self)

    def available(self) -> int | None:
        """The number of bytes beyond `position`: 0 at the end of the body, None while there are none.

        Raises:
            BodyCutShort: the fetch failed in mid-body.
        """
        return self._spool.beyond(self)

    def subscribe(self, wake: Callable[[], None]) -> bool:
        """As Signal.subscribe(): call `wake` once news() or, after the answer, available() has something to tell."""
        return self._spool.subscribe(self, wake)

    def advance(self, count: int) -> None:
        """`count` bytes have been used."""
        self._spool.advance(self, count)

    def take_errand(self) -> Errand | None:
        """What the fetch has left to be run, if anything: the caller's from now on. It runs no other."""
        self.runs_errands = False
        return self._spool.take_errand()

    def hand_over(self) -> None:
        """It will be slow: it runs no errands, and what the fetch has left is the crew's."""
        self.runs_errands = False
        self._spool.hand_over()

    def detach(self) -> None:
        """Leave, and let the fetch run to its end without a reader."""
        self._spool.leave(self, detached=True)

    def close(self) -> None:
        """Leave; the last user closes the file."""
        self._spool.leave(self)


class Spool:
    """Shared by the fetch that writes and the readers."""

    def __init__(
        self, directory: str | None, memory_bytes_max: int = MEMORY_BYTES_MAX, budget: SpoolBudget = NO_BUDGET
    ) -> None:
        """A body of more than `memory_bytes_max` lies in a file in `directory`."""
        self.fd = -1
        self._budget = budget
        self._granted = 0
        """Taken from the budget."""
        self._others: list[Callable[[], None]] = []
        """To be called without the lock: other spools whose turn it is."""
        self._directory = directory
        self._memory = bytearray()
        self._memory_start = 0
        """The position in the body of the first byte in memory, if there are any; the file has those before it."""
        self.is_in_memory = False
        """The file cannot be written."""
        self._has_place = False
        """The budget knows that it is more than tiny, and lies in memory."""
        self._is_trimmed = False
        """The first bytes in memory are gone."""
        self._memory_bytes_max = memory_bytes_max
        self._lock = threading.Lock()
        self._readers: list[SpoolReader] = []
        self._answer: Answer | None = None
        self._interims: list[Interim] = []
        self.written = 0
        """Bytes of the body so far; the writer's."""
        self._punched = 0
        self._is_over = False
        self._errand: Errand | None = None
        self._room_window: int | None = None
        """Somebody waits for the body to be at most so far ahead."""
        self._is_kept = False
        self._filled: int | None = None
        self.on_room: Callable[[], None] = _nothing
        """Called, by any thread, once there is room after has_room() was False."""
        self.wake_by: Callable[[Wake], None] = _at_once
        """Calls what wakes readers: at once, or when more has been written that arrived together with it."""
        self._error: OriginError | None = None
        self._is_abandoned = False
        self._is_sealed = False
        self._is_detached = False
        """A reader left the fetch running without it."""

    # -- readers -------------------------------------------------------------------------------------------------
    def join(self) -> SpoolReader | None:
        """A reader from the first byte on; None if those bytes are gone, or will not arrive."""
        with self._lock:
            is_closed = self._is_sealed or (self._is_over and not self._readers)
            is_gone = self._punched or self._is_trimmed
            if is_closed or self._is_abandoned or is_gone or self._error is not None:
                return None
            reader = SpoolReader(self)
            self._readers.append(reader)
            return reader

    def reader(self) -> SpoolReader:
        """The first reader."""
        with self._lock:
            self._readers.append(SpoolReader(self))
            return self._readers[-1]

    def news(self, reader: SpoolReader) -> Interim | Answer | None:
        """See SpoolReader."""
        with self._lock:
            if reader.interims_seen < len(self._interims):
                reader.interims_seen += 1
                return self._interims[reader.interims_seen - 1]
            if self._answer is not None:
                reader.is_told = True
                return self._answer
            if self._error is not None:
                raise _once_more(self._error)
            return None

    def beyond(self, reader: SpoolReader) -> int | None:
        """See SpoolReader."""
        with self._lock:
            available = self.written - reader.position
            if available > 0:
                in_file = self._memory_start - reader.position
                return min(available, in_file) if self.is_in_memory and in_file > 0 else available
            if not self._is_over:
                return None
            if self._error is None:
                return 0
            raise BodyCutShort(str(self._error))

    def subscribe(self, reader: SpoolReader, wake: Callable[[], None]) -> bool:
        """See SpoolReader."""
        with self._lock:
            if self._has_progress(reader):
                return False
            reader.wake = wake
            return True

    def _has_progress(self, reader: SpoolReader) -> bool:
        if self._is_over:
            return True
        if reader.is_told:
            return self.written > reader.position
        return self._answer is not None or reader.interims_seen < len(self._interims)

    def _to_wake(self) -> list[Callable[[], None]]:
        """What to call, without the lock, after a change."""
        wakes = []
        for reader in self._readers:
            wake = reader.wake
            if wake is not None and self._has_progress(reader):
                reader.wake = None
                wakes.append(wake)
        return wakes

    def advance(self, reader: SpoolReader, count: int) -> None:
        """See SpoolReader."""
        with self._lock:
            reader.position += count
            tells = self._is_room_now()
        self._wake_others()
        if tells:
            self.on_room()

    def leave(self, reader: SpoolReader, *, detached: bool = False) -> None:
        """See SpoolReader.close() and SpoolReader.detach()."""
        if reader.runs_errands:
            reader.hand_over()
        with self._lock:
            reader.wake = None
            if reader in self._readers:
                self._readers.remove(reader)
                self._is_detached = self._is_detached or detached
            tells = self._is_room_now()
            wakes = self._close_if_unused()
        if tells:
            self.on_room()
        _call_all(wakes)

    def take_errand(self) -> Errand | None:
        """See SpoolReader."""
        with self._lock:
            errand, self._errand = self._errand, None
            return errand

    def hand_over(self) -> None:
        """An errand that was left is the crew's."""
        errand = self.take_errand()
        if errand is not None:
            errand.hand_over()

    # -- the writer ----------------------------------------------------------------------------------------------
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
        with self._lock:
            self._is_abandoned = self._is_abandoned or not self.wanted
            return self._is_abandoned

    def seal(self) -> None:
        """Nobody may join any more."""
        with self._lock:
            self._is_sealed = True

    def interim(self, status: int, fields: Fields) -> None:
        """Pass an interim response to the readers."""
        with self._lock:
            self._interims.append(Interim(status, fields))
            wakes = self._to_wake()
        self._wake(wakes)

    def answer(self, answer: Answer) -> None:
        """Pass the answer to the readers."""
        with self._lock:
            self._answer = answer
            wakes = self._to_wake()
        self._wake(wakes)

    def write(self, data: bytes | memoryview) -> None:
        """Append to the body.

        Raises:
            OSError: the file cannot be written, and too many others are in memory for that reason.
        """
        is_small = self.fd < 0 and self._fits_memory(self.written + len(data))
        if not (is_small or self.is_in_memory):
            try:
                self._to_file()
                _write_at(self.fd, data, self.written)
            except OSError as error:
                self._stay_in_memory(error)
        with self._lock:
            if is_small or self.is_in_memory:
                self._memory += data
            self.written += len(data)
            wakes = self._to_wake()
        self._wake(wakes)

    def leave_errand(self, errand: Errand) -> bool:
        """Let a reader that is about to run take it; False if there is none. What it does must not be waited for."""
        with self._lock:
            for reader in self._readers:
                if reader.runs_errands:
                    self._errand = errand
                    return True
            return False

    def _wake(self, wakes: list[Wake]) -> None:
        if wakes:
            self.wake_by(partial(_call_all, wakes))

    def _fits_memory(self, count: int) -> bool:
        """Whether so many bytes may lie in memory; those that were there before may in any case."""
        if count > self._memory_bytes_max or count <= TINY_BYTES_MAX:
            return count <= self._memory_bytes_max
        self._has_place = self._has_place or self._budget.take_place()
        return self._has_place

    def _leave_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._budget.give_back_place()

    def _to_file(self) -> None:
        if self.fd >= 0:
            return
        if not self._budget.take_file():
            raise OSError(errno.EMFILE, "as many bodies have a file as there are descriptors planned for")
        fd = -1
        try:
            fd = _open_unnamed(self._place)
            _write_at(fd, self._memory, 0)
        except OSError:
            self._budget.give_back_file()
            if fd >= 0:
                os.close(fd)
            raise
        with self._lock:
            self.fd, self._memory = fd, bytearray()
            self._leave_place()

    @property
    def _place(self) -> str:
        return self._directory or tempfile.gettempdir()

    def _stay_in_memory(self, error: OSError) -> None:
        """The file cannot be written; raises the error if memory may not do either."""
        kind = errno.errorcode.get(error.errno or 0, "unknown")
        remedy = "raise ulimit -n" if error.errno in OUT_OF_DESCRIPTORS else "make room there, or set spool_directory"
        facts = {"kind": kind, "directory": self._place, "reason": str(error), "remedy": remedy}
        log.warning("spool not written", extra=facts)
        if not self._budget.take_memory():
            raise error
        with self._lock:
            self.is_in_memory = True
            if self.fd >= 0:
                self._memory_start = self.written

    def read_into(self, views: Sequence[memoryview], offset: int) -> int:
        """Read from the body into the views; returns how many bytes. As os.preadv()."""
        with self._lock:
            in_file = self._in_file(offset)
            if in_file == 0:
                return self._copy(views, offset)
        if in_file is None:
            return os.preadv(self.fd, views, offset)
        there = []  # from here on the rest stays in memory
        behind = []
        for view in views:
            there.append(view[:in_file])
            behind.append(view[in_file:])
            in_file -= len(there[-1])
        read = os.preadv(self.fd, there, offset)
        with self._lock:
            return read + (0 if in_file else self._copy(behind, offset + read))

    def _copy(self, views: Sequence[memoryview], offset: int) -> int:
        at = offset - self._memory_start
        for view in views:
            piece = self._memory[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return at + self._memory_start - offset

    def _in_file(self, position: int) -> int | None:
        """How many bytes from there on are in the file, and the others in memory; None: all are."""
        if self.fd < 0:
            return 0
        return max(0, self._memory_start - position) if self.is_in_memory else None

    def in_memory(self, position: int, count: int) -> bytes | None:
        """These bytes of the body, if they lie in memory."""
        with self._lock:
            if self._in_file(position) != 0:
                return None
            at = position - self._memory_start
            return bytes(self._memory[at : at + count])

    def prefix(self) -> SpooledPrefix | None:
        """The bytes received so far, for use after the end; None if part of them is gone already.

        Raises:
            OSError: no descriptor is left.
        """
        if not self.written or self._punched or self.is_in_memory:
            return None
        self._to_file()
        return SpooledPrefix(os.dup(self.fd), self.written)

    def restart(self) -> None:
        """Discard the body: the fetch is tried again, and no reader knows of it yet."""
        with self._lock:
            assert self._answer is None, "readers know the answer already"
            self.written = self._memory_start = 0
            self._memory.clear()
            self._leave_memory()  # it may be written by now

    def has_room(self, window_bytes: int, *, is_kept: bool = False, filled: int | None = None) -> bool:
        """Whether more may be written; if not, on_room() follows when it may.

        `is_kept`: the bytes that all readers have passed are needed, so that they take room as well. `filled` is the
        fill's position, if there is one: it is waited for when no reader is left.
        """
        with self._lock:
            self._filled = filled
            has_room = self._has_room(window_bytes, is_kept=is_kept)
            if not has_room:
                self._room_window, self._is_kept = window_bytes, is_kept
                self._wait_for_turn(window_bytes)
        self._wake_others()
        return has_room

    def subscribe_room(self, window_bytes: int, wake: Callable[[], None]) -> bool:
        """Call `wake` once there is room; False if there is, and no call follows."""
        with self._lock:
            has_room = self._has_room(window_bytes, is_kept=False)
            if not has_room:
                self._room_window, self._is_kept, self.on_room = window_bytes, False, wake
                self._wait_for_turn(window_bytes)
        self._wake_others()
        return not has_room

    def _wait_for_turn(self, window_bytes: int) -> None:
        if not self.is_in_memory:
            self._others += self._budget.wait(self, self._to_take(window_bytes), self._on_turn)

    def _wake_others(self) -> None:
        while self._others:
            self._others.pop()()

    def _on_turn(self) -> None:
        """The budget keeps for it what it waited for."""
        with self._lock:
            is_waiting = self._room_window is not None
            tells = self._is_room_now()
        self._wake_others()
        if tells:
            self.on_room()
        elif not is_waiting:
            _call_all(self._budget.forget(self))

    def tell_room(self, filled: int | None = None) -> None:
        """Call on_room() if somebody waits for it, and there is room; `filled` as in has_room()."""
        with self._lock:
            self._filled = filled
            tells = self._is_room_now()
        self._wake_others()
        if tells:
            self.on_room()

    def _is_room_now(self) -> bool:
        """Whether somebody waits for room that is there now; told once."""
        if self._room_window is None or not self._has_room(self._room_window, is_kept=self._is_kept):
            return False
        self._room_window = None
        return True

    def _has_room(self, window_bytes: int, *, is_kept: bool) -> bool:
        if self.is_in_memory:
            if not is_kept:
                self._trim()
            return len(self._memory) < IN_MEMORY_BYTES
        wanted = self._to_take(window_bytes)
        if wanted <= 0:
            return True
        wakes = self._budget.take(self, wanted)
        if wakes is not None:
            self._granted += wanted
            self._others += wakes
            return True
        return not is_kept and self._lead() <= window_bytes

    def _trim(self) -> None:
        """Forget what nobody needs of the bytes in memory."""
        positions = [reader.position for reader in self._readers]
        needed_from = min(positions, default=self.written)
        if self._filled is not None:
            needed_from = min(needed_from, self._filled)
        passed = needed_from - self._memory_start
        if passed > 0:
            del self._memory[:passed]
            self._memory_start = needed_from
            self._is_trimmed = True

    def _leave_memory(self) -> None:
        if self.is_in_memory:
            self.is_in_memory = False
            self._budget.give_back_memory()

    def _to_take(self, window_bytes: int) -> int:
        """What is missing of the room for what is held."""
        missing = self.written - self._punched - window_bytes - self._granted
        return missing - missing % -GRANT_BYTES

    def _lead(self) -> int:
        """How far the body is ahead of its fastest reader or, without any, of the fill."""
        if self._is_detached:
            return 0
        if not self._readers:
            return 0 if self._filled is None else self.written - self._filled
        return self.written - max(reader.position for reader in self._readers)

    def forget_read(self, needed_from: int | None = None) -> None:
        """Free the disk space that all readers have passed, up to `needed_from`; nobody can join after that."""
        with self._lock:
            slowest = min((reader.position for reader in self._readers), default=self.written)
            slowest = min(slowest, self.written if needed_from is None else needed_from)
            if self.is_in_memory:
                slowest = min(slowest, self._memory_start if self.fd >= 0 else 0)
            start, end = self._punched, slowest - slowest % PUNCH_BYTES
            if end <= start:
                return
            self._punched = end
            back = min(self._granted, end - start)  # PUNCH_BYTES is a multiple of what is granted
            self._granted -= back
        _libc.fallocate(self.fd, _PUNCH_HOLE_KEEP_SIZE, start, end - start)  # best effort: not every file system can
        if back:
            _call_all(self._budget.give_back(back))

    def end(self, error: OriginError | None = None) -> None:
        """The fetch is over; the writer leaves."""
        with self._lock:
            self._is_over = True
            self._error = None if error is None else _once_more(error)
            self._room_window, self.on_room = None, _nothing  # which may refer to whoever owns this
            wakes = self._to_wake() + self._close_if_unused()
        _call_all(wakes + self._budget.forget(self))

    def _close_if_unused(self) -> list[Callable[[], None]]:
        """Whom to wake, without the lock."""
        if not self._is_over or self._readers:
            return []
        self._leave_memory()
        self._leave_place()
        if self.fd < 0:
            return []
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)
        self._budget.give_back_file()
        granted, self._granted = self._granted, 0
        return self._budget.give_back(granted) if granted else []


def _write_at(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(fd, view[written:], offset + written)


def _open_unnamed(directory: str) -> int:
    """A new file without a name (O_TMPFILE, open(2)), on any file system."""
    try:
        return os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        return os.dup(file.fileno())


def _nothing() -> None:
    """Nobody waits for room."""


def _at_once(wake: Wake) -> None:
    wake()


def _call_all(wakes: list[Callable[[], None]]) -> None:
    for wake in wakes:
        try:
            wake()
        except Exception:  # the others are still to be called
            log.exception("reader of a spool not woken")


def _once_more(error: OriginError) -> OriginError:
    """A copy of the error: one raised by several threads would accumulate the frames of all of them."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin
