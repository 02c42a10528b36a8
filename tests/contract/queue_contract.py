"""The contract between a command queue's owner and its senders, as a message queue and in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import ChannelTimeout, CommandError, NameMissing, NameTaken, PeerGone, UsageError
from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX, MESSAGES_MAX, MessageQueue, MessageSender
from tests.support.channels import in_thread, unique_queue
from tests.support.waiting import WATCHDOG_S, wait_until


def soon() -> Deadline:
    """The watchdog."""
    return Deadline.after(WATCHDOG_S)


class QueueContract:
    """Subclasses name the types and say how an owner is killed."""

    queue_type: type[MessageQueue]
    sender_type: type[MessageSender]

    def kill(self, queue: MessageQueue) -> None:
        """End the owner as SIGKILL does."""
        raise NotImplementedError

    @pytest.fixture
    def queue(self) -> Iterator[MessageQueue]:
        queue = self.queue_type.create(unique_queue())
        queue.set_ready()
        yield queue
        queue.close()
        self.queue_type.create(queue.name).close()  # the next owner removes whatever a killed one left

    @pytest.fixture
    def sender(self, queue: MessageQueue) -> Iterator[MessageSender]:
        sender = self.sender_type(queue.name)
        yield sender
        sender.close()

    def test_message_arrives(self, queue: MessageQueue, sender: MessageSender) -> None:
        message = bytes(range(256)) * (MESSAGE_BYTES_MAX // 256)
        sender.send(message, 1, soon())
        sender.send(b"", 1, soon())
        assert queue.waiting == 2
        assert queue.receive(WATCHDOG_S) == message
        assert queue.receive(WATCHDOG_S) == b""
        assert queue.receive(0.0) is None
        assert queue.waiting == 0

    def test_most_urgent_first_then_in_order(self, queue: MessageQueue, sender: MessageSender) -> None:
        sent = [(priority, f"{priority} {number}".encode()) for number in range(2) for priority in (1, 3, 0, 2)]
        for priority, message in sent:
            sender.send(message, priority, soon())
        arrived = [queue.receive(0.0) for _ in sent]
        assert arrived == [b"3 0", b"3 1", b"2 0", b"2 1", b"1 0", b"1 1", b"0 0", b"0 1"]

    def test_receive_waits(self, queue: MessageQueue, sender: MessageSender) -> None:
        with in_thread(lambda: queue.receive(WATCHDOG_S)) as received:
            sender.send(b"hello", 1, soon())
        assert received.result() == b"hello"

    def test_each_message_goes_to_one(self, queue: MessageQueue, sender: MessageSender) -> None:
        with (
            in_thread(lambda: queue.receive(WATCHDOG_S)) as first,
            in_thread(lambda: queue.receive(WATCHDOG_S)) as second,
        ):
            sender.send(b"a", 1, soon())
            sender.send(b"b", 1, soon())
        assert {first.result(), second.result()} == {b"a", b"b"}

    def test_who_waits_can_be_woken(self, queue: MessageQueue, sender: MessageSender) -> None:
        with (
            in_thread(lambda: queue.receive(2 * WATCHDOG_S)) as first,
            in_thread(lambda: queue.receive(2 * WATCHDOG_S)) as second,
        ):
            queue.wake()
            queue.wake()
        assert (first.result(), second.result()) == (None, None)

    def test_waking_takes_nothing_away(self, queue: MessageQueue, sender: MessageSender) -> None:
        for number in range(MESSAGES_MAX - 1):
            sender.send(b"%d" % number, 0, soon())
        for _ in range(MESSAGES_MAX):
            queue.wake()
        arrived = [queue.receive(0.0) for _ in range(MESSAGES_MAX)]
        assert arrived == [*(b"%d" % number for number in range(MESSAGES_MAX - 1)), None]
        assert queue.waiting == 0

    def test_full_queue(self, queue: MessageQueue, sender: MessageSender) -> None:
        for _ in range(MESSAGES_MAX):
            sender.send(b"x", 1, soon())
        with pytest.raises(ChannelTimeout):
            sender.send(b"too much", 3, Deadline.after(0.01))
        with in_thread(lambda: sender.send(b"in time", 3, soon())):
            assert queue.receive(0.0) == b"x"
        assert queue.receive(0.0) == b"in time"
        assert queue.waiting == MESSAGES_MAX - 1

    def test_full_queue_of_a_dead_owner(self, queue: MessageQueue, sender: MessageSender) -> None:
        for _ in range(MESSAGES_MAX):
            sender.send(b"x", 1, soon())
        self.kill(queue)
        with pytest.raises(PeerGone):
            sender.send(b"y", 1, soon())

    def test_message_too_long(self, queue: MessageQueue, sender: MessageSender) -> None:
        with pytest.raises(CommandError, match=str(MESSAGE_BYTES_MAX + 1)):
            sender.send(bytes(MESSAGE_BYTES_MAX + 1), 1, soon())
        assert queue.waiting == 0

    def test_nobody_there(self) -> None:
        with pytest.raises(NameMissing):
            self.sender_type(unique_queue())

    def test_not_ready_yet(self) -> None:
        queue = self.queue_type.create(unique_queue())
        try:
            with pytest.raises(NameMissing):
                self.sender_type(queue.name)
            queue.set_ready()
            self.sender_type(queue.name).close()
        finally:
            queue.close()

    def test_stopping_owner_gets_nothing_new(self, queue: MessageQueue, sender: MessageSender) -> None:
        assert sender.ready()
        queue.set_stopping()
        wait_until(lambda: not sender.ready())
        assert sender.alive(), "commands under way are still served"
        with pytest.raises(NameMissing):
            self.sender_type(queue.name)

    def test_closed_owner(self, queue: MessageQueue, sender: MessageSender) -> None:
        assert sender.alive()
        queue.close()
        assert not sender.alive()
        wait_until(lambda: not sender.ready())
        with pytest.raises(NameMissing):
            self.sender_type(queue.name)

    def test_name_is_taken(self, queue: MessageQueue, sender: MessageSender) -> None:
        sender.send(b"kept", 1, soon())
        with pytest.raises(NameTaken, match=str(os.getpid())):
            self.queue_type.create(queue.name)
        assert queue.receive(0.0) == b"kept"

    def test_take_over_from_the_dead(self, queue: MessageQueue, sender: MessageSender) -> None:
        sender.send(b"lost", 1, soon())
        self.kill(queue)
        assert not sender.alive()
        with pytest.raises(NameMissing):
            self.sender_type(queue.name)
        heir = self.queue_type.create(queue.name)
        try:
            heir.set_ready()
            assert heir.receive(0.0) is None, "commands of the past are not served"
            assert not sender.alive(), "another queue has the name now"
            fresh = self.sender_type(queue.name)
            fresh.send(b"new", 1, soon())
            fresh.close()
            assert heir.receive(0.0) == b"new"
        finally:
            heir.close()

    def test_close_twice_leaves_the_next_owner_alone(self, queue: MessageQueue) -> None:
        queue.close()
        heir = self.queue_type.create(queue.name)
        try:
            heir.set_ready()
            queue.close()
            fresh = self.sender_type(queue.name)
            assert fresh.alive()
            fresh.close()
        finally:
            heir.close()

    def test_closed_sender(self, queue: MessageQueue, sender: MessageSender) -> None:
        sender.close()
        sender.close()
        assert not sender.alive()
        with pytest.raises(PeerGone):
            sender.send(b"x", 1, soon())
        assert queue.waiting == 0
        assert queue.name in sender.describe()

    @pytest.mark.parametrize("name", ["", "/", "plain", "/a/b", "/" + "x" * 201, "/.hidden", "/new\nline"])
    def test_unusable_name(self, name: str) -> None:
        with pytest.raises(UsageError):
            self.queue_type.create(name)
        with pytest.raises(UsageError):
            self.sender_type(name)
