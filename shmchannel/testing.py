"""In-memory fakes for tests of programs that use the library; the same contract tests run on them and on the real ones.

They hold no name of the operating system and live in one process: names are looked up in a table of that process.

    pool = SegmentPool("gf-1-0000000a", None, 4, 4096, create=MemorySegment.create)      instead of SegmentPool.create()
    queue = MemoryQueue.create("/any")                                                   instead of CommandQueue
    server = ChannelServer(queue, handler, attachments=MemoryAttachments())
    client = ChannelClient("/any", pool, open_sender=MemorySender)

ManualPeer stands for the other process of a ChunkReader or ChunkWriter, and ends when the test says so.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import threading
from typing import Self

from shmchannel.deadline import Deadline
from shmchannel.errors import (
    ChannelTimeout,
    CommandError,
    NameMissing,
    NameTaken,
    PeerGone,
)
from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX, MESSAGES_MAX, WAKE
from shmchannel.process.naming import checked_queue_name
from shmchannel.streams.attachments import AttachmentTable
from shmchannel.streams.segment import Segment

_PEER_CHECK_SECONDS = 0.01


class ManualPeer:
    """The other process, as far as liveness is concerned: alive until end()."""

    def __init__(self, text: str = "a peer of a test") -> None:
        self._text = text
        self._alive = True

    def alive(self) -> bool:
        """True until end()."""
        return self._alive

    def describe(self) -> str:
        """The description given to the constructor."""
        return self._text

    def end(self) -> None:
        """The peer is dead from now on."""
        self._alive = False

    def close(self) -> None:
        """Nothing is open."""


_blocks: dict[str, int] = {}
_blocks_lock = threading.Lock()


class MemorySegment(Segment):
    """A segment in anonymous memory; its name is known in this process only."""

    __slots__ = ()

    @staticmethod
    def exists(name: str) -> bool:
        """As Segment.exists()."""
        return name in _blocks

    @staticmethod
    def _create_name(name: str) -> int:
        with _blocks_lock:
            if name in _blocks:
                raise FileExistsError(errno.EEXIST, name)
            _blocks[name] = fd = os.memfd_create(name)
            return os.dup(fd)

    @staticmethod
    def _open_name(name: str) -> int:
        with _blocks_lock:
            if name not in _blocks:
                raise FileNotFoundError(errno.ENOENT, name)
            return os.dup(_blocks[name])

    @staticmethod
    def _remove_name(name: str) -> None:
        with _blocks_lock:
            fd = _blocks.pop(name, None)
        if fd is not None:
            os.close(fd)


class _Mailbox:
    """What a queue's name refers to: messages, and whether their reader is alive and accepts more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.messages: list[tuple[int, int, bytes]] = []
        self.order = itertools.count()
        self.alive = True
        self.ready = False
        self.announced = ""


_mailboxes: dict[str, _Mailbox] = {}
_mailboxes_lock = threading.Lock()


class MemoryQueue:
    """A MessageQueue within this process; kill() leaves behind what a killed owner leaves behind."""

    def __init__(self, name: str, mailbox: _Mailbox) -> None:
        self.name = name
        self._mailbox = mailbox

    @classmethod
    def create(cls, name: str) -> Self:
        """As CommandQueue.create()."""
        checked_queue_name(name)
        with _mailboxes_lock:
            found = _mailboxes.get(name)
            if found is not None and found.alive:
                raise NameTaken(f"{name} is held by process {os.getpid()}", errno.EEXIST, hint="it is alive")
            _mailboxes[name] = mailbox = _Mailbox()
        return cls(name, mailbox)

    def receive(self, timeout_s: float) -> bytes | None:
        """As CommandQueue.receive()."""
        mailbox = self._mailbox
        with mailbox.changed:
            if not mailbox.changed.wait_for(lambda: mailbox.messages, timeout_s):
                return None
            message = heapq.heappop(mailbox.messages)[2]
            mailbox.changed.notify_all()
            return None if message == WAKE else message

    def wake(self) -> None:
        """As CommandQueue.wake()."""
        mailbox = self._mailbox
        with mailbox.changed:
            if len(mailbox.messages) < MESSAGES_MAX:
                heapq.heappush(mailbox.messages, (0, next(mailbox.order), WAKE))
                mailbox.changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many messages wait now."""
        return len(self._mailbox.messages)

    def announce(self, text: str) -> None:
        """As CommandQueue.announce()."""
        self._mailbox.announced = text

    def set_ready(self) -> None:
        """From now on senders may open the queue."""
        self._mailbox.ready = True

    def set_stopping(self) -> None:
        """No new senders from now on."""
        self._mailbox.ready = False

    def kill(self) -> None:
        """End as SIGKILL ends a process: the name stays, its owner is dead."""
        self._mailbox.alive = self._mailbox.ready = False

    def close(self) -> None:
        """Remove the queue; may be called twice."""
        self.kill()
        with _mailboxes_lock:
            if _mailboxes.get(self.name) is self._mailbox:
                del _mailboxes[self.name]


class MemorySender:
    """A MessageSender for a MemoryQueue."""

    def __init__(self, name: str) -> None:
        """As CommandSender()."""
        self.name = checked_queue_name(name)
        mailbox = _mailboxes.get(name)
        if mailbox is None or not mailbox.ready:
            raise NameMissing(f"no process serves queue {name}", errno.ENOENT, says_why=True)
        self.reader_pid = os.getpid()
        self._mailbox: _Mailbox | None = mailbox
        self.announced = mailbox.announced

    def alive(self) -> bool:
        """True while the owner of the queue lives and this end is open."""
        return self._mailbox is not None and self._mailbox.alive

    def ready(self) -> bool:
        """True while it takes new commands."""
        return self._mailbox is not None and self._mailbox.ready

    def describe(self) -> str:
        """The queue's reader, for error messages."""
        return f"reader of {self.name}"

    def send(self, message: bytes, priority: int, deadline: Deadline) -> None:
        """As CommandSender.send()."""
        if len(message) > MESSAGE_BYTES_MAX:
            raise CommandError(f"a message of {len(message)} bytes, at most {MESSAGE_BYTES_MAX}")
        mailbox = self._mailbox
        if mailbox is None:
            raise PeerGone(f"the sender to {self.name} is closed")
        with mailbox.changed:
            while len(mailbox.messages) >= MESSAGES_MAX:
                if not mailbox.alive:
                    raise PeerGone(f"{self.describe()} has ended")
                if deadline.expired:
                    raise ChannelTimeout(f"{self.name}: no room for a command before the deadline")
                mailbox.changed.wait(deadline.slice(_PEER_CHECK_SECONDS))
            heapq.heappush(mailbox.messages, (-priority, next(mailbox.order), message))
            mailbox.changed.notify_all()

    def close(self) -> None:
        """Close this end; may be called twice."""
        self._mailbox = None


class MemoryAttachments(AttachmentTable):
    """The attachments of a ChannelServer whose proxies use MemorySegment; `proxy` is the life of all of them."""

    def __init__(self, proxy: ManualPeer | None = None) -> None:
        peer = proxy or ManualPeer("the proxy of a test")
        super().__init__(segment_type=MemorySegment, open_watch=lambda _pool: peer)
