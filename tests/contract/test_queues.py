"""Both kinds of queues keep the contract."""

from shmchannel.messages.posix_queue import CommandQueue, CommandSender, MessageQueue
from shmchannel.testing import MemoryQueue, MemorySender
from tests.contract.queue_contract import QueueContract
from tests.support.pairs import abandon_queue


class TestPosixQueue(QueueContract):
    """A message queue and its guard."""

    queue_type = CommandQueue
    sender_type = CommandSender

    def kill(self, queue: MessageQueue) -> None:
        """Free the lock and leave the names, which is what the kernel does at a process's death."""
        assert isinstance(queue, CommandQueue)
        abandon_queue(queue)
        queue._queue.close()


class TestMemoryQueue(QueueContract):
    """The fake."""

    queue_type = MemoryQueue
    sender_type = MemorySender

    def kill(self, queue: MessageQueue) -> None:
        """The fake has a verb for it."""
        assert isinstance(queue, MemoryQueue)
        queue.kill()
