"""CommandQueue and CommandSender: a POSIX message queue with its guard. One process owns and reads it, any number send.

mq_timedsend(3) and mq_timedreceive(3) wait on the wall clock, and wait longer if it is set back. So no wait that must
end in time relies on them: a sender that finds no room waits by epoll, and a receiver, which every message wakes, is
woken by a message when its owner stops. (A receiver that polled would cost every command a second call.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
from contextlib import ExitStack, suppress
from time import monotonic_ns
from typing import Protocol, Self

import posix_ipc

from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline
from shmchannel.errors import ChannelTimeout, CommandError, LimitReached, NameMissing, NameTaken, PeerGone, os_errors
from shmchannel.process.guard import GuardWatch, ProcessGuard, read_holder
from shmchannel.process.identity import user_text
from shmchannel.process.naming import (
    SHM_DIRECTORY,
    checked_queue_name,
    hot_table_name,
    parse_queue_guard,
    queue_guard_path,
)
from shmchannel.process.reaper import unlink_memory, unlink_queue
from shmchannel.sync.semaphore import PeerLiveness

MESSAGE_BYTES_MAX = 8192
MESSAGES_MAX = 10
"""Both are what an unprivileged process may have by default (mq_overview(7))."""


_MQUEUE_DIRECTORY = "/dev/mqueue"

LOOK_AGAIN_NS = 10_000_000
"""How long a look at the owner's guard is good for the next message; a wait for an answer looks again anyway."""

WAKE = os.urandom(16)
"""The message by which the owner of a queue wakes its own threads; not a command, and nobody else knows it."""

_FULL = frozenset({errno.ETIMEDOUT, errno.EINTR})


_LONG_AGO = bytes(16)  # a struct timespec
# A send that need not wait keeps the GIL: releasing it costs more than the call. posix_ipc always releases it. Without
# argument types, whose conversion costs as much as the call: it is given ints of C and bytes.
_mq_timedsend = ctypes.PyDLL(None, use_errno=True).mq_timedsend


def _take_over(name: str) -> ProcessGuard:
    path = queue_guard_path(checked_queue_name(name))
    try:
        return ProcessGuard.acquire(path)
    except NameTaken as error:
        raise NameTaken(
            f"queue {name} is served by process {read_holder(path) or 'unknown'}",
            error.errno,
            hint="stop it, or choose another queue name (-q)",
            says_why=True,
        ) from error


def _make_queue(name: str) -> posix_ipc.MessageQueue:
    try:
        with os_errors(f"create message queue {name}", existential=errno.EEXIST):
            return posix_ipc.MessageQueue(
                name,
                posix_ipc.O_CREX,
                mode=0o600,
                max_messages=MESSAGES_MAX,
                max_message_size=MESSAGE_BYTES_MAX,
            )
    except LimitReached as error:
        if error.errno != errno.EMFILE or not _has_free_descriptor():
            raise
        # The kernel reports the user's limit of bytes in message queues as "too many open files" too.
        limit = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
        held = ", ".join(_queues_of_this_user(but=name)) or "no queue that can be seen from here"
        raise LimitReached(
            f"create message queue {name}: RLIMIT_MSGQUEUE, {limit} bytes for all queues of {user_text(os.geteuid())},"
            f" is used up; held by {held}",
            error.errno,
            hint="stop one of those, remove what the dead left by gfcache-clean, or raise ulimit -q (systemd:"
            " LimitMSGQUEUE=)",
            says_why=True,
        ) from error


def _has_free_descriptor() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _queues_of_this_user(but: str) -> list[str]:
    """The user's other queues with their owners: ours by their guards, others where their file system is mounted."""
    owners = {name: path for path in _own_files(SHM_DIRECTORY) if (name := parse_queue_guard(os.path.basename(path)))}
    names = {*owners, *(f"/{os.path.basename(path)}" for path in _own_files(_MQUEUE_DIRECTORY))}
    return [f"{name} (process {read_holder(owners.get(name, '')) or 'unknown'})" for name in sorted(names - {but})]


def _own_files(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.stat(follow_symlinks=False).st_uid == os.geteuid()]
    except OSError:  # not mounted, or a name that has just gone
        return []


class MessageQueue(Protocol):
    """The receiving, owning end of a queue, whatever carries the messages."""

    name: str

    @classmethod
    def create(cls, name: str) -> Self:
        """Become the owner of the name; a dead owner's leftovers are removed."""
        ...

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, the most urgent first, waiting up to `timeout_s` seconds; None when there is none."""
        ...

    def wake(self) -> None:
        """Let one receive() return None, once the messages that are there are taken. Never waits."""
        ...

    @property
    def waiting(self) -> int:
        """The number of waiting messages."""
        ...

    def announce(self, text: str) -> None:
        """Announce the protocol spoken on this queue to senders; call before set_ready()."""
        ...

    def set_ready(self) -> None:
        """From now on senders may open the queue."""
        ...

    def set_stopping(self) -> None:
        """From now on no new senders are admitted."""
        ...

    def close(self) -> None:
        """Remove the queue; may be called twice."""
        ...


class MessageSender(PeerLiveness, Protocol):
    """The sending end of a queue; also the liveness of the process that reads it."""

    name: str
    reader_pid: int
    announced: str

    def __init__(self, name: str) -> None: ...

    def ready(self) -> bool:
        """Whether the reader accepts new messages."""
        ...

    def send(self, message: bytes, priority: int, deadline: Deadline) -> None:
        """Send one message, waiting for space until the deadline."""
        ...

    def close(self) -> None:
        """Close this end; may be called twice."""
        ...


class CommandQueue:
    """The receiving, owning end: a MessageQueue."""

    def __init__(self, name: str, queue: posix_ipc.MessageQueue, guard: ProcessGuard) -> None:
        self.name = name
        self._queue = queue
        self._guard = guard
        self._closed = False

    @classmethod
    def create(cls, name: str) -> Self:
        """Become the owner of the name, remove a dead owner's queue and hot table, make a new queue; mode 0600.

        Raises:
            NameTaken: a living process owns it (the text names its pid), or another user's queue has the name.
            LimitReached: the user's limit for message queues is used up.
        """
        guard = _take_over(name)
        with ExitStack() as undo:
            undo.callback(guard.close)
            with os_errors(f"create message queue {name}", existential=errno.EEXIST):
                if not unlink_queue(name):
                    raise NameTaken(
                        f"message queue {name} belongs to another user",
                        errno.EEXIST,
                        hint="let its owner remove it, or choose another queue name with -q",
                        says_why=True,
                    )
                undo.callback(unlink_queue, name)
                unlink_memory(hot_table_name(name))
            queue = _make_queue(name)
            undo.pop_all()
        return cls(name, queue, guard)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, the most urgent first, waiting up to `timeout_s` seconds; None when there is none.

        Several threads may wait at once: the kernel wakes exactly one for each message. The time is the wall clock's:
        if that is set back, only a message or wake() ends the wait in time.
        """
        try:
            message: bytes = self._queue.receive(timeout_s)[0]
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return None
        return None if message == WAKE else message

    def wake(self) -> None:
        """Let one receive() return None, once the messages that are there are taken; nothing when the queue is full.

        Never waits.
        """
        _mq_timedsend(self._queue.mqd, WAKE, len(WAKE), 0, _LONG_AGO)

    def announce(self, text: str) -> None:
        """Announce the protocol spoken on this queue to senders; call before set_ready()."""
        self._guard.announce(text)

    def set_ready(self) -> None:
        """From now on senders may open the queue."""
        self._guard.set_ready()

    @property
    def waiting(self) -> int:
        """The number of waiting messages."""
        count: int = self._queue.current_messages
        return count

    def set_stopping(self) -> None:
        """No new senders and messages from now on; what is under way may end."""
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
    """The sending end: a MessageSender, and so the liveness of the process that reads the queue."""

    def __init__(self, name: str) -> None:
        """Open the queue of a living process.

        Raises:
            NameMissing: no living process is ready on this name.
            AccessDenied: it is another user's, who is named in the text.
        """
        self.name = name
        absent = NameMissing(f"no process serves queue {name}", errno.ENOENT, says_why=True)
        try:
            self._watch = GuardWatch(queue_guard_path(checked_queue_name(name)))
        except NameMissing as error:
            raise absent from error
        try:
            if not self._watch.ready():
                raise absent
            self._watch.check_user()
            with os_errors(f"open message queue {name}"):
                self._queue = posix_ipc.MessageQueue(name, read=False)
        except BaseException:
            self._watch.close()
            raise
        self.reader_pid = read_holder(self._watch.path) or 0
        """The process that reads the queue; 0 when it is not known."""
        self.announced = self._watch.announced()
        """The owner's announcement; see CommandQueue.announce()."""
        self._fd: int = self._queue.mqd
        self._ready_until_ns = 0

    def alive(self) -> bool:
        """True while the process that made this very queue lives (a restarted one has another queue)."""
        return self._watch.alive() and self._linked()

    def ready(self) -> bool:
        """True while it takes new messages, as seen within the last ten milliseconds."""
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
        """The queue's reader, for error messages."""
        return f"reader of {self.name}, {self._watch.describe()}"

    def send(self, message: bytes, priority: int, deadline: Deadline) -> None:
        """Put one message in, waiting for room in slices.

        Raises:
            ChannelTimeout: no room before the deadline.
            PeerGone: the reader ended.
            CommandError: it is longer than MESSAGE_BYTES_MAX.
            LimitReached: there is no room, and no descriptor left to wait with.
        """
        if _mq_timedsend(self._fd, message, len(message), priority, _LONG_AGO) == 0:
            return
        if len(message) > MESSAGE_BYTES_MAX:
            raise CommandError(f"a message of {len(message)} bytes, at most {MESSAGE_BYTES_MAX}")
        self._check_full()
        with self._watch_for_room() as room:
            while True:
                is_room = room.poll(deadline.slice(PEER_CHECK_SECONDS))
                # Tried before anything is raised: the call to this thread was the only one for that room.
                if _mq_timedsend(self._fd, message, len(message), priority, _LONG_AGO) == 0:
                    return
                self._check_full()
                if not is_room and not self.alive():
                    raise PeerGone(f"{self.describe()} has ended")
                if deadline.expired:
                    raise ChannelTimeout(f"{self.name}: no room for a command before the deadline")

    def _check_full(self) -> None:
        """After a send that failed: it did for want of room, and not because this end is closed."""
        code = ctypes.get_errno()
        if code not in _FULL:
            raise PeerGone(f"{self.describe()}: {os.strerror(code)}")

    def _watch_for_room(self) -> select.epoll:
        """One for each wait, so that room wakes one of them; by poll(2) it would wake all, in all processes."""
        with os_errors(f"wait for room in {self.name}"), ExitStack() as undo:
            room = undo.enter_context(select.epoll())
            room.register(self._fd, select.EPOLLOUT | select.EPOLLEXCLUSIVE)
            undo.pop_all()
            return room

    def close(self) -> None:
        """Close both ends' handles; may be called twice."""
        self._watch.close()
        self._fd = -1  # the number may soon be another file's
        with suppress(posix_ipc.Error):
            self._queue.close()
