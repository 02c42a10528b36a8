"""CommandQueue: one POSIX message queue with its guard; created by the cache, opened by proxies."""

from __future__ import annotations

import ctypes
import errno
import os
from time import monotonic_ns, sleep
from typing import Self

import posix_ipc

from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline
from shmchannel.errors import ChannelTimeout, CommandError, NameMissing, NameTaken, PeerGone, os_errors
from shmchannel.guard import GuardWatch, ProcessGuard, read_holder, read_ready
from shmchannel.naming import checked_queue_name, queue_guard_path, shelf_name
from shmchannel.reaper import unlink_memory, unlink_queue

MESSAGE_BYTES_MAX = 8192
MESSAGES_MAX = 10
"""Both are what an unprivileged process may have by default (mq_overview(7))."""


SWEEP_SECONDS = 0.5
"""How long a sweeper that holds a dead cache's guard is waited for."""

LOOK_AGAIN_NS = 10_000_000
"""How long a look at the cache's guard holds good for the next command; a wait for an answer looks again anyway."""


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_LONG_AGO = _TimeSpec(0, 0)
# A send that need not wait keeps the GIL: giving it up costs more than the call. posix_ipc always drops it.
_mq_timedsend = ctypes.PyDLL(None, use_errno=True).mq_timedsend
_mq_timedsend.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.POINTER(_TimeSpec)]


def _take_over(name: str) -> ProcessGuard:
    """The guard of the queue. A sweeper of a dead cache holds it for a moment, never ready: that is waited for."""
    path = queue_guard_path(checked_queue_name(name))
    deadline = Deadline.after(SWEEP_SECONDS)
    while True:
        try:
            return ProcessGuard.acquire(path)
        except NameTaken as error:
            if deadline.expired or read_ready(path):
                raise NameTaken(
                    f"another cache lives on {name}: process {read_holder(path) or 'unknown'}",
                    error.errno,
                    hint="stop it, or choose another queue name with -q",
                    says_why=True,
                ) from error
        sleep(LOOK_AGAIN_NS / 1e9)


class CommandQueue:
    """The receiving, owning end."""

    def __init__(self, name: str, queue: posix_ipc.MessageQueue, guard: ProcessGuard) -> None:
        self.name = name
        self._queue = queue
        self._guard = guard
        self._closed = False

    @classmethod
    def create(cls, name: str) -> Self:
        """Become the owner of the name, remove the queue and the shelf of a dead owner, make a new queue; mode 0600.

        Raises:
            NameTaken: a living process owns it (the text names its pid).
            LimitReached: the user's limit for message queues is used up.
        """
        guard = _take_over(name)
        try:
            unlink_queue(name)
            unlink_memory(shelf_name(name))
            with os_errors(f"create message queue {name}", existential=errno.EEXIST):
                queue = posix_ipc.MessageQueue(
                    name,
                    posix_ipc.O_CREX,
                    mode=0o600,
                    max_messages=MESSAGES_MAX,
                    max_message_size=MESSAGE_BYTES_MAX,
                    write=False,
                )
        except BaseException:
            unlink_queue(name)
            guard.close()
            raise
        return cls(name, queue, guard)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, the most urgent first, waiting up to `timeout_s` seconds; None when there is none.

        Several threads may wait at once: the kernel wakes exactly one for each message.
        """
        try:
            message: bytes = self._queue.receive(timeout_s)[0]
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return None
        return message

    def set_ready(self) -> None:
        """From now on proxies may open the queue and send."""
        self._guard.set_ready()

    @property
    def waiting(self) -> int:
        """How many messages wait now."""
        count: int = self._queue.current_messages
        return count

    def set_stopping(self) -> None:
        """Proxies send nothing new from now on; what is under way goes on."""
        self._guard.set_stopping()

    def close(self) -> None:
        """Remove queue and guard; may be called twice."""
        if self._closed:  # the name may be another's by now
            return
        self._closed = True
        self._guard.set_stopping()
        unlink_queue(self.name)  # the name first: a late opener must not find a queue that nobody reads
        self._queue.close()
        self._guard.close()


class CommandSender:
    """The sending end; also the liveness of the cache that reads this queue."""

    def __init__(self, name: str) -> None:
        """Open the queue of a living cache.

        Raises:
            NameMissing: there is no living, ready cache on this name.
            AccessDenied: it is another user's.
        """
        self.name = name
        hint = f"start simplecached -q {name}"
        absent = NameMissing(f"no cache lives on {name}", errno.ENOENT, hint=hint, says_why=True)
        try:
            self._watch = GuardWatch(queue_guard_path(checked_queue_name(name)))
        except NameMissing as error:
            raise absent from error
        try:
            if not self._watch.ready():
                raise absent
            with os_errors(f"open message queue {name}"):
                self._queue = posix_ipc.MessageQueue(name, read=False)
        except BaseException:
            self._watch.close()
            raise
        self.reader_pid = read_holder(self._watch.path) or 0
        """The process that reads the queue; 0 when it is not known."""
        self._fd: int = self._queue.mqd
        self._ready_until_ns = 0

    def alive(self) -> bool:
        """True while the cache that made this very queue lives (a restarted one has another queue)."""
        return self._watch.alive() and self._linked()

    def ready(self) -> bool:
        """True while that cache takes new commands, as seen within the last ten milliseconds."""
        now = monotonic_ns()
        if now < self._ready_until_ns:
            return True
        if self._watch.ready() and self._linked():
            self._ready_until_ns = now + LOOK_AGAIN_NS
            return True
        self._ready_until_ns = 0
        return False

    def _linked(self) -> bool:
        try:
            return os.fstat(self._fd).st_nlink > 0
        except OSError:
            return False

    def describe(self) -> str:
        """Who reads the queue, for an error text."""
        return f"cache on {self.name}, {self._watch.describe()}"

    def send(self, message: bytes, priority: int, deadline: Deadline) -> None:
        """Put one message in, waiting for room in slices.

        Raises:
            ChannelTimeout: no room before the deadline.
            PeerGone: the cache ended.
            CommandError: it is longer than MESSAGE_BYTES_MAX.
        """
        if _mq_timedsend(self._fd, message, len(message), priority, _LONG_AGO) == 0:
            return
        if len(message) > MESSAGE_BYTES_MAX:
            raise CommandError(f"a message of {len(message)} bytes, at most {MESSAGE_BYTES_MAX}")
        while True:
            try:
                self._queue.send(message, deadline.slice(PEER_CHECK_SECONDS), priority)
            except posix_ipc.BusyError:
                if not self.alive():
                    raise PeerGone(f"{self.describe()} has ended") from None
                if deadline.expired:
                    raise ChannelTimeout(f"{self.name}: no room for a command before the deadline") from None
            except posix_ipc.SignalError:
                continue
            except posix_ipc.Error as error:
                raise PeerGone(f"{self.describe()}: {error}") from error
            else:
                return

    def close(self) -> None:
        """Close both ends' handles; may be called twice."""
        self._watch.close()
        self._fd = -1  # the number may soon be another file's
        try:
            self._queue.close()
        except posix_ipc.Error:
            return
