"""Daemons of two releases: each side says at once which versions meet and what to do, and nothing waits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack

import posix_ipc
import pytest

from shmchannel.deadline import Deadline
from shmchannel.messages.posix_queue import CommandSender
from shmchannel.objects.commands import VERSION
from shmchannel.process.guard import ProcessGuard
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import queue_guard_path
from shmchannel.streams.pool import SegmentPool
from shmchannel.streams.segment import Segment
from tests.http.client import fetch
from tests.support.client import ask
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S
from workloads.origin_stub import OriginStub, Route

GET, PUT, PURGE, PING, UPDATE = 1, 2, 3, 4, 5
OTHER_VERSION, OK, LAST, ERROR, PREAMBLE, CANCEL = 5, 1, 1, 2, 8, 1


def says_all(event: dict[str, object], theirs: int) -> bool:
    reason = str(event["reason"])
    return f"version {theirs} " in reason and f"version {VERSION} " in reason and "same release" in reason


# -- a cache of another release ---------------------------------------------------------------------------------------
@pytest.fixture(params=[b"", b" commands 3"], ids=["the last one", "the next one"])
def stranger(request: pytest.FixtureRequest, yard: DaemonYard) -> Iterator[posix_ipc.MessageQueue]:
    """The names of such a cache: its guard, as it wrote it, and its queue, from which nobody reads our commands."""
    with ExitStack() as resources:
        guard = ProcessGuard.acquire(queue_guard_path(yard.queue))
        resources.callback(guard.close)
        identity = own_identity()
        with open(guard.path, "r+b") as file:
            file.truncate()
            file.write(b"%d %d%s\n" % (identity.pid, identity.start_time, request.param))
        queue = posix_ipc.MessageQueue(yard.queue, posix_ipc.O_CREX, max_messages=10, max_message_size=8192)
        resources.callback(queue.unlink)
        resources.callback(queue.close)
        guard.set_ready()
        yield queue


def test_a_cache_of_another_version_gets_no_command(stranger: posix_ipc.MessageQueue, yard: DaemonYard) -> None:
    proxy = yard.start_proxy()
    assert fetch(proxy.port, "/x").status == 503
    assert ask(proxy.port, "/x").status == "ERROR"
    event = proxy.wait_event("cache of another version")
    assert says_all(event, 1) or says_all(event, 3)
    assert len(proxy.events("cache of another version")) == 1
    assert stranger.current_messages == 0
    assert "Traceback" not in proxy.log_text()
    assert proxy.stop() == 0


def test_beside_a_cache_of_another_version_the_origin_serves(
    stranger: posix_ipc.MessageQueue, yard: DaemonYard
) -> None:
    with OriginStub({"/x": Route(body=b"abc", headers={"Cache-Control": "max-age=60"})}) as origin:
        proxy = yard.start_proxy("-s", origin.url)
        for _ in range(2):
            assert fetch(proxy.port, "/x").body == b"abc"
        assert ask(proxy.port, "/x").body == b"abc"
        proxy.wait_event("cache of another version")
        assert stranger.current_messages == 0
        assert proxy.stop() == 0


# -- a proxy of the last release --------------------------------------------------------------------------------------
def old_command(kind: int, segment: Segment, *, flags: int = 0, length: int = 0, version: int = 1) -> bytes:
    """A command as a proxy of version 1 sends it, byte by byte."""
    name = segment.name.encode()
    head = struct.pack(
        "<4sBBBBQ16sQQQQHH", b"GFC\x01", version, kind, 1, flags, 1, bytes(16), 0, 0, length, 0, 1, len(b"/x")
    )
    generation = segment.header.prepare()
    return head + bytes([len(name)]) + name + struct.pack("<QQ", generation, segment.segment_bytes) + b"/x"


class OldProxy:
    """Its pool and its end of the queue; segments have not changed since."""

    def __init__(self, yard: DaemonYard) -> None:
        self.cache: DaemonProcess = yard.start_cache()
        self.pool = SegmentPool.create(1, 8192)
        self.sender = CommandSender(yard.queue)
        self.segment = self.pool.lease(Deadline.after(WATCHDOG_S)).segments[0]

    def send(self, kind: int, **values: int) -> None:
        self.sender.send(old_command(kind, self.segment, **values), 1, Deadline.after(WATCHDOG_S))

    def close(self) -> None:
        self.sender.close()
        self.pool.close()


@pytest.fixture
def old_proxy(yard: DaemonYard) -> Iterator[OldProxy]:
    made = OldProxy(yard)
    yield made
    made.close()


@pytest.mark.parametrize("kind", [GET, PURGE, PING])
def test_a_question_of_an_old_proxy_is_refused_at_once(old_proxy: OldProxy, kind: int) -> None:
    """By a status that it does not know: what it makes of it is an error of its cache, not an object that is absent."""
    old_proxy.send(kind)
    old_proxy.segment.data_available.take(WATCHDOG_S, old_proxy.sender)
    assert old_proxy.segment.header.read_chunk() == [OTHER_VERSION, 0, 0, LAST | ERROR]
    assert says_all(old_proxy.cache.wait_event("proxy of another version"), 1)
    assert "Traceback" not in old_proxy.cache.log_text()


@pytest.mark.parametrize(("kind", "size"), [(PUT, 3), (UPDATE, 0)])
def test_what_an_old_proxy_offers_is_not_stored(old_proxy: OldProxy, kind: int, size: int) -> None:
    segment = old_proxy.segment
    old_proxy.send(kind, length=size)
    segment.header.write_object(size, 0, 0, own_identity())
    segment.space_available.take(WATCHDOG_S, old_proxy.sender)
    segment.header.write_chunk(OK, size, 0, LAST)
    segment.data_available.post()
    segment.space_available.take(WATCHDOG_S, old_proxy.sender)
    assert segment.header.read_request() == CANCEL
    assert says_all(old_proxy.cache.wait_event("proxy of another version"), 1)


def test_many_commands_of_an_old_proxy_are_told_of_once(old_proxy: OldProxy) -> None:
    for _ in range(5):
        old_proxy.send(GET)
        old_proxy.segment.data_available.take(WATCHDOG_S, old_proxy.sender)
        old_proxy.segment.space_available.post()
    assert len(old_proxy.cache.events("proxy of another version")) == 1
    assert old_proxy.cache.stop() == 0


def test_a_command_of_a_version_to_come_is_told_of(old_proxy: OldProxy) -> None:
    old_proxy.send(GET, version=9)
    assert says_all(old_proxy.cache.wait_event("proxy of another version"), 9)
    assert old_proxy.cache.stop() == 0
