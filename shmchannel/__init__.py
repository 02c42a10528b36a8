"""Bytes between processes through shared memory; when either side is killed, the other gets an exception, not a hang.

The side that asks owns a pool of segments, the side that answers owns a queue. Here both are in one program:

    import os
    from collections.abc import Sequence
    from threading import Thread

    from shmchannel import (
        ChannelClient, ChannelServer, ChunkWriter, Command, CommandQueue, Deadline, Handler, ObjectFacts, SegmentPool
    )

    class Shouter(Handler):
        def get(self, command: Command, writer: ChunkWriter) -> None:
            body = command.key.upper()

            def read_into(views: Sequence[memoryview], offset: int) -> int:
                views[0][:] = body[offset : offset + len(views[0])]
                return len(views[0])

            writer.begin(ObjectFacts(size_bytes=len(body), version=1, preamble_bytes=0))
            writer.send(read_into, 0, len(body))

    name = f"/shout-{os.getpid()}"
    queue, pool = CommandQueue.create(name), SegmentPool.create(count=2, segment_bytes=4096)
    server, client = ChannelServer(queue, Shouter()), ChannelClient(name, pool)
    queue.set_ready()
    worker = Thread(target=server.serve_one, args=[5.0])
    worker.start()
    with client.get(b"hello", Deadline.after(5.0)) as transfer:
        answer = bytes(transfer.chunk)
        transfer.finish()
    worker.join()
    for part in (client, server, pool, queue):
        part.close()
    print(answer.decode())

docs/library.md is the guide; `shmchannel.testing` has the same in memory, without any name of the operating system.
"""

from shmchannel.deadline import Deadline
from shmchannel.errors import (
    AccessDenied,
    ChannelTimeout,
    CommandError,
    LayoutMismatch,
    LimitReached,
    NameMissing,
    NameTaken,
    PeerError,
    PeerGone,
    PeerProtocolError,
    PoolExhausted,
    RequestFailed,
    ResourceError,
    ShmChannelError,
    UsageError,
)
from shmchannel.messages.posix_queue import CommandQueue, CommandSender
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import Command, CommandKind, Priority
from shmchannel.objects.server import ChannelServer, Handler
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer
from shmchannel.process.guard import GuardWatch, ProcessGuard
from shmchannel.process.reaper import FoundName, survey, sweep
from shmchannel.stats import PoolStats, ServerStats
from shmchannel.streams.chunk_reader import ChunkReader
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import ObjectFacts
from shmchannel.streams.pool import Lease, SegmentPool
from shmchannel.streams.segment import Segment
from shmchannel.streams.transfer import TransferState
from shmchannel.sync.semaphore import PeerLiveness
from shmchannel.workers import WorkerPool

__all__ = [
    "AccessDenied",
    "ChannelClient",
    "ChannelServer",
    "ChannelTimeout",
    "ChunkReader",
    "ChunkWriter",
    "Command",
    "CommandError",
    "CommandKind",
    "CommandQueue",
    "CommandSender",
    "Deadline",
    "FoundName",
    "GuardWatch",
    "Handler",
    "IncomingTransfer",
    "LayoutMismatch",
    "Lease",
    "LimitReached",
    "NameMissing",
    "NameTaken",
    "ObjectFacts",
    "OutgoingTransfer",
    "PeerError",
    "PeerGone",
    "PeerLiveness",
    "PeerProtocolError",
    "PoolExhausted",
    "PoolStats",
    "Priority",
    "ProcessGuard",
    "RequestFailed",
    "ResourceError",
    "Segment",
    "SegmentPool",
    "ServerStats",
    "ShmChannelError",
    "TransferState",
    "UsageError",
    "WorkerPool",
    "survey",
    "sweep",
]
