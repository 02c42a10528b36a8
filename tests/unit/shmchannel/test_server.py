"""The server's own parts. What it does together with a client is in tests/contract."""

from __future__ import annotations

import logging

import pytest

from shmchannel import server as server_module
from shmchannel.deadline import Deadline
from shmchannel.server import ChannelServer
from shmchannel.testing import MemoryAttachments, MemoryQueue, MemorySender
from tests.support.channels import unique_queue
from tests.support.pairs import DictCache
from tests.support.waiting import WATCHDOG_S


def test_complaints_are_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken proxy must not fill the disk."""
    queue = MemoryQueue.create(unique_queue())
    queue.set_ready()
    sender = MemorySender(queue.name)
    server = ChannelServer(queue, DictCache(), attachments=MemoryAttachments())

    def send_malformed(count: int) -> None:
        for _ in range(count):
            sender.send(b"nonsense", 1, Deadline.after(WATCHDOG_S))
            assert server.serve_one(WATCHDOG_S)

    with caplog.at_level(logging.WARNING, "shmchannel.server"):
        send_malformed(5)
        assert len(caplog.records) == 1
        monkeypatch.setattr(server_module, "monotonic_ns", lambda: server._next_log_ns)
        send_malformed(1)
        assert len(caplog.records) == 2
    assert server.stats().malformed_total == 6
    assert caplog.records[1].malformed == 6  # type: ignore[attr-defined]
    server.close()
    queue.close()


def test_nothing_to_serve() -> None:
    queue = MemoryQueue.create(unique_queue())
    server = ChannelServer(queue, DictCache(), attachments=MemoryAttachments())
    assert not server.serve_one(0.0)
    stats = server.stats()
    assert (stats.served_total, stats.malformed_total, stats.expired_total, stats.broken_total) == (0, 0, 0, 0)
    server.close()
    server.close()
    queue.close()
