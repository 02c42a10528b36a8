"""Nonsense written into the cache's queue and into segments: counted and refused, and the cache serves on."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmchannel.deadline import Deadline
from shmchannel.errors import CommandError
from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX, CommandSender
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import Command, CommandKind, Priority, decode, encode
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.streams.layout import HEADER_BYTES, ObjectFacts, SegmentHeader, SegmentRef
from shmchannel.streams.pool import Lease, SegmentPool
from shmchannel.streams.segment import Segment
from shmchannel.testing import ManualPeer
from tests.faults.harness import CONTENT, POOL_FLAGS, SMALL, assert_serves, write_content
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S

MESSAGES = 400
STALL = {"SIMPLECACHED_BETWEEN_BYTES_TIMEOUT_S": "0.1"}
PRIORITY_MAX = int(Priority.URGENT)


@pytest.fixture
def cache(yard: DaemonYard, tmp_path: Path) -> DaemonProcess:
    return yard.start_cache("-t", "4", content=write_content(tmp_path / "content"), env=STALL)


@contextmanager
def sending(queue: str) -> Iterator[Callable[[bytes, int], None]]:
    """A function that puts a message on the queue, waiting for room."""
    sender = CommandSender(queue)
    try:
        yield lambda message, priority: sender.send(message, priority, Deadline.after(WATCHDOG_S))
    finally:
        sender.close()


@contextmanager
def own_pool(segment_bytes: int = 4096) -> Iterator[SegmentPool]:
    """A living pool of this process."""
    pool = SegmentPool.create(4, segment_bytes, segments_per_transfer_max=4)
    try:
        yield pool
    finally:
        pool.close()


def refs(lease: Lease) -> tuple[SegmentRef, ...]:
    """A lease's segments, as a command names them."""
    return tuple(SegmentRef(one.wire_name, one.header.prepare(), one.segment_bytes) for one in lease.segments)


def assert_serves_on(yard: DaemonYard, cache: DaemonProcess) -> dict[str, int]:
    """A proxy gets right bytes from the cache, which then stops cleanly; returns its last counts."""
    proxy = yard.start_proxy(*POOL_FLAGS)
    assert_serves(proxy.port, SMALL)
    assert proxy.stop() == 0
    assert cache.stop() == 0, cache.log_text()
    assert [event for event in cache.events() if "exception" in event] == []
    counts: dict[str, int] = cache.events("stopped")[-1]
    assert counts["unfinished"] == 0
    return counts


commands = st.builds(
    Command,
    st.sampled_from(CommandKind),
    st.one_of(st.binary(max_size=300), st.just(SMALL.encode())),
    st.lists(
        st.builds(
            SegmentRef,
            st.one_of(st.binary(max_size=80), st.just(b"/gf-1-00000000-0"), st.just(b"/gf-4194304-0123abcd-1")),
            st.integers(0, 2**64 - 1),
            st.one_of(st.integers(0, 2**64 - 1), st.just(8192)),
        ),
        max_size=8,
    ).map(tuple),
    deadline_ns=st.one_of(st.just(0), st.integers(0, 2**64 - 1)),
    offset=st.integers(0, 2**64 - 1),
    length=st.integers(0, 2**64 - 1),
    version=st.integers(0, 2**64 - 1),
    flags=st.integers(0, 1),
    priority=st.integers(0, PRIORITY_MAX),
    request_id=st.integers(0, 2**64 - 1),
    trace_id=st.binary(min_size=16, max_size=16),
)
cuts = st.tuples(st.integers(0, 2**16), st.integers(0, 2**16), st.binary(max_size=8))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Random bytes, a command, or a command with some bytes replaced, left out or put in."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=1000))
    message = encode(draw(commands))
    for at, gap, middle in draw(st.lists(cuts, max_size=3)):
        start = at % (len(message) + 1)
        message = message[:start] + middle + message[start + gap % 12 :]
    return message[:MESSAGE_BYTES_MAX]


def test_nonsense_on_the_queue(yard: DaemonYard, cache: DaemonProcess) -> None:
    sent = refused = 0
    with sending(yard.queue) as send:

        @settings(
            max_examples=MESSAGES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.nested_given],
        )
        @given(messages(), st.integers(0, PRIORITY_MAX))
        def put(message: bytes, priority: int) -> None:
            nonlocal sent, refused
            send(message, priority)
            sent += 1
            try:
                decode(message)
            except CommandError:
                refused += 1

        put()
    counts = assert_serves_on(yard, cache)
    assert sent > refused > 0
    assert counts["malformed"] == refused
    assert counts["expired"] + counts["broken"] == sent - refused, "none of them named a segment that exists"


def bad_names(pool: SegmentPool) -> list[bytes]:
    """Names that are none, or of nothing."""
    return [
        b"",
        b"/",
        b"/..",
        b"/../etc/passwd",
        f"/{pool.name}-0/../../etc/passwd".encode(),
        f"/{pool.name}-0\0".encode(),
        f"{pool.name}-0".encode(),
        f"/{pool.name}-00".encode(),
        f"/{pool.name}.guard".encode(),
        f"/{pool.name}-99999".encode(),
        "/gf-\u0661-00000000-0".encode(),  # a digit, and not one of ours
        b"\xff" * 255,
    ]


def untouched(segment: Segment) -> bool:
    """Whether nobody wrote into the segment since it was prepared, nor took or posted a semaphore."""
    values = (segment.data_available.value, segment.space_available.value)
    return values == (0, 1) and not any(segment.chunk) and segment.header.read_chunk() == [0, 0, 0, 0]


def test_segments_that_are_not_what_the_command_says(yard: DaemonYard, cache: DaemonProcess) -> None:
    with own_pool() as pool, own_pool() as other, sending(yard.queue) as send:
        lease, foreign = pool.lease(Deadline.after(1)), other.lease(Deadline.after(1))
        (one, two), (three, _) = refs(lease), refs(foreign)
        lists = [
            *((one._replace(name=name),) for name in bad_names(pool)),
            (one._replace(generation=one.generation + 1),),
            (one._replace(generation=0),),
            (one._replace(segment_bytes=one.segment_bytes * 2),),
            (one._replace(segment_bytes=0),),
            (one, one),
            (one, three),
            (one, two._replace(generation=two.generation + 1)),
            (),
        ]
        for segments in lists:
            send(encode(Command(CommandKind.GET, SMALL.encode(), segments)), 0)
        counts = assert_serves_on(yard, cache)
        assert counts["broken"] == len(lists)
        assert all(untouched(segment) for segment in (*lease.segments, *foreign.segments))
        lease.give_back()
        foreign.give_back()


@pytest.mark.parametrize("kind", ["empty", "short", "zeros", "random", "huge size", "no guard"])
def test_blocks_that_are_no_segments(kind: str, yard: DaemonYard, cache: DaemonProcess) -> None:
    bodies = {
        "empty": b"",
        "short": bytes(100),
        "zeros": bytes(4096),
        "random": random.Random(7).randbytes(4096),
        "huge size": _published(2**40),
        "no guard": _published(4096),
    }
    with own_pool() as pool, sending(yard.queue) as send:
        owner = f"gf-{os.getpid()}-{secrets.token_hex(4)}" if kind == "no guard" else pool.name
        name = f"{owner}-77"
        path = os.path.join(SHM_DIRECTORY, name)
        with open(path, "w+b", buffering=0) as block:
            block.write(bodies[kind])
            try:
                send(encode(Command(CommandKind.GET, SMALL.encode(), (SegmentRef(f"/{name}".encode(), 1, 4096),))), 0)
                counts = assert_serves_on(yard, cache)
            finally:
                Path(path).unlink(missing_ok=True)  # the start of a proxy sweeps what has no guard
            block.seek(0)
            assert block.read() == bodies[kind], "it was written to"
    assert counts["broken"] == 1


def _published(claimed_bytes: int) -> bytes:
    """A block of 4,096 bytes with a good header that claims a size."""
    block = bytearray(4096)
    with memoryview(block) as view, view[:HEADER_BYTES].cast("Q") as words:
        header = SegmentHeader(words)
        header.initialise(claimed_bytes, own_identity())
        header.publish()
        header.prepare()
    return bytes(block)


def test_flags_of_a_consumer_gone_wild(yard: DaemonYard, cache: DaemonProcess) -> None:
    numbers = random.Random(3)
    broken = 0
    with own_pool() as pool, sending(yard.queue) as send:
        for flags in (1, 2, 3, 4, 2**63, *(numbers.getrandbits(64) for _ in range(20))):
            lease = pool.lease(Deadline.after(WATCHDOG_S), 1)
            command = Command(CommandKind.GET, SMALL.encode(), refs(lease))
            lease.segments[0].header.write_request(flags)
            send(encode(command), 0)
            if flags in (1, 4):  # CANCEL and PAUSE are requests like any other
                lease.segments[0].data_available.take(WATCHDOG_S, ManualPeer("the cache"))
            else:
                broken += 1
            lease.retire()
    assert assert_serves_on(yard, cache)["broken"] == broken


def test_fills_that_contradict_themselves(yard: DaemonYard, cache: DaemonProcess) -> None:
    numbers = random.Random(5)
    sizes = (0, 1, 3712, 3713, 2**32, 2**63, 2**64 - 1)
    with own_pool() as pool, sending(yard.queue) as send:
        for number in range(60):
            lease = pool.lease(Deadline.after(WATCHDOG_S), 1)
            (segment,) = lease.segments
            said = numbers.choice(sizes)
            command = Command(CommandKind.PUT, b"/fill-%d" % number, refs(lease), length=said)
            facts = ObjectFacts(numbers.choice((said, *sizes)), 0, numbers.choice((0, 1, 65_537, 2**64 - 1)))
            segment.header.write_object(*facts, own_identity())
            segment.header.write_chunk(
                numbers.randrange(6), numbers.choice(sizes[1:]), numbers.choice(sizes), numbers.randrange(1, 17)
            )
            segment.data_available.post()
            send(encode(command), 0)
            lease.retire()
    with own_pool(8192) as pool:  # one chunk holds the small object: the cache waits for no step of this process
        client = ChannelClient(yard.queue, pool)
        try:
            for number in range(60):
                with client.get(b"/fill-%d" % number, Deadline.after(WATCHDOG_S)) as transfer:
                    assert not transfer.found, "half a fill became an object"
                    transfer.finish()
            with client.get(SMALL.encode(), Deadline.after(WATCHDOG_S)) as transfer:
                assert bytes(transfer.chunk) == CONTENT[SMALL]
                transfer.finish()
        finally:
            client.close()
    assert_serves_on(yard, cache)
