"""Both kinds of queues keep the contract."""

from shmchannel.messages.posix_queue import CommandQueue, CommandSender, MessageQueue
from shmchannel.process.naming import queue_guard_path
from shmchannel.testing import MemoryQueue, MemorySender
from tests.contract.queue_contract import QueueContract
from tests.support.holders import free_lock


class TestPosixQueue(QueueContract):
    """A message queue and its guard."""

    queue_type = CommandQueue
    sender_type = CommandSender

    def kill(self, queue: MessageQueue) -> None:
        """Free the lock and leave the names, which is what the kernel does at a process's death."""
        free_lock(queue_guard_path(queue.name))


class TestMemoryQueue(QueueContract):
    """The fake."""

    queue_type = MemoryQueue
    sender_type = MemorySender

    def kill(self, queue: MessageQueue) -> None:
        """The fake has a verb for it."""
        assert isinstance(queue, MemoryQueue)
        queue.kill()
