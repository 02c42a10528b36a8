"""The cache's attachments: kept while their pool lives, checked each time, and nothing stays open for the dead."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from shmchannel.deadline import Deadline
from shmchannel.errors import LayoutMismatch, LimitReached, NameMissing, PeerGone, PeerProtocolError
from shmchannel.process.naming import SHM_DIRECTORY, pool_guard_path
from shmchannel.process.reaper import sweep
from shmchannel.streams.attachments import AttachmentTable
from shmchannel.streams.layout import SegmentRef
from shmchannel.streams.pool import Lease, SegmentPool
from shmchannel.streams.segment import Segment
from tests.support.channels import SEGMENT_BYTES, in_thread
from tests.support.descriptors import none_left
from tests.support.holders import holding
from tests.support.stores import open_fds
from tests.support.waiting import WATCHDOG_S


@pytest.fixture
def table() -> Iterator[AttachmentTable]:
    table = AttachmentTable()
    yield table
    table.close()


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    pool = SegmentPool.create(4, SEGMENT_BYTES)
    yield pool
    pool.close()


def prepared(lease: Lease) -> list[SegmentRef]:
    """The lease, as a command names it."""
    return [SegmentRef(s.wire_name, s.header.prepare(), s.segment_bytes) for s in lease.segments]


def again(segment: Segment) -> SegmentRef:
    """A segment, as the next command names it."""
    return SegmentRef(segment.wire_name, segment.header.prepare(), segment.segment_bytes)


def soon() -> Deadline:
    """The watchdog."""
    return Deadline.after(WATCHDOG_S)


def guards_open(pool: str) -> int:
    """How many descriptors of this process lie on the pool's guard."""
    return sum(target.startswith(pool_guard_path(pool)) for target in open_fds().values())


def test_kept_from_request_to_request(table: AttachmentTable, pool: SegmentPool) -> None:
    lease = pool.lease(soon())
    segments, watch = table.take(prepared(lease))
    assert [segment.name for segment in segments] == [segment.name for segment in lease.segments]
    assert watch.alive()
    assert table.count == 0
    table.put_back(segments)
    assert table.count == len(segments) == 2
    again, same_watch = table.take(prepared(lease))
    assert all(first is second for first, second in zip(segments, again, strict=True))
    assert same_watch is watch
    table.drop(again)
    assert table.count == 0
    lease.give_back()


@pytest.mark.parametrize(
    "name",
    [b"", b"/", b"/etc/passwd", b"/gf-1-00000000-0/../../x", b"gf-1-00000000-0", b"/gf-1-00000000-0\x00", b"\xff\xfe"],
)
def test_bad_name(table: AttachmentTable, name: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        table.take([SegmentRef(name, 1, SEGMENT_BYTES)])


def test_refused_commands_leave_nothing_attached(table: AttachmentTable, pool: SegmentPool) -> None:
    lease = pool.lease(soon())
    good, other = prepared(lease)
    for refs in (
        [good, good],
        [good._replace(generation=good.generation - 1)],
        [good._replace(generation=good.generation + 1)],
        [good, other._replace(segment_bytes=SEGMENT_BYTES - 1)],
        [good, SegmentRef(b"nonsense", 1, 1)],
    ):
        with pytest.raises(PeerProtocolError):
            table.take(refs)
        assert table.count == 0
    segments, _ = table.take([good, other])
    table.put_back(segments)
    lease.give_back()


def test_segments_of_two_pools(table: AttachmentTable, pool: SegmentPool) -> None:
    other_pool = SegmentPool.create(1, SEGMENT_BYTES)
    lease, other = pool.lease(soon(), 1), other_pool.lease(soon(), 1)
    with pytest.raises(PeerProtocolError, match="one pool"):
        table.take(prepared(lease) + prepared(other))
    other_pool.close()
    lease.give_back()


def test_dead_or_absent_proxy(table: AttachmentTable) -> None:
    with pytest.raises(PeerGone):
        table.take([SegmentRef(b"/gf-999999999-00000000-0", 1, SEGMENT_BYTES)])


def test_segment_that_is_gone(table: AttachmentTable, pool: SegmentPool) -> None:
    with pytest.raises(NameMissing):
        table.take([SegmentRef(f"/{pool.name}-77".encode(), 1, SEGMENT_BYTES)])


def test_block_that_is_no_segment(table: AttachmentTable, pool: SegmentPool) -> None:
    path = f"{SHM_DIRECTORY}/{pool.name}-88"
    with open(path, "wb") as file:
        file.write(b"x" * SEGMENT_BYTES)
    try:
        with pytest.raises(LayoutMismatch):
            table.take([SegmentRef(f"/{pool.name}-88".encode(), 1, SEGMENT_BYTES)])
    finally:
        os.unlink(path)


def test_sweep_forgets_retired_segments(table: AttachmentTable, pool: SegmentPool) -> None:
    lease = pool.lease(soon())
    kept = pool.lease(soon(), 1)
    for each in (lease, kept):
        table.put_back(table.take(prepared(each))[0])
    assert table.sweep() == 0
    lease.retire()
    assert table.sweep() == 2
    assert table.count == 1
    kept.give_back()


@pytest.mark.parametrize("clean", [True, False])
def test_nothing_stays_open_for_a_dead_pool(table: AttachmentTable, clean: bool) -> None:
    """Also not when its last transfer broke: then the segments were dropped, not put back."""
    pool = SegmentPool.create(2, SEGMENT_BYTES)
    before = guards_open(pool.name)
    segments, _ = table.take(prepared(pool.lease(soon())))
    assert guards_open(pool.name) == before + 1
    pool.close()
    table.sweep()
    assert guards_open(pool.name) == 1, "the transfer still asks whether its proxy lives"
    (table.put_back if clean else table.drop)(segments)
    table.sweep()
    assert guards_open(pool.name) == 0
    assert table.count == 0


def test_two_mappings_of_one_segment(table: AttachmentTable, pool: SegmentPool) -> None:
    """One was given back in mid-stream and serves another transfer; that the first one breaks is nothing to it."""
    before = len(open_fds())
    lease = pool.lease(soon())
    first, second = lease.segments
    broken, _ = table.take(prepared(lease))
    other, _ = table.take([again(first)])
    table.put_back(other)
    table.drop(broken)
    segments, watch = table.take([again(first)])
    assert segments == other
    assert watch.alive()
    broken, _ = table.take([again(second)])
    other, _ = table.take([again(second)])
    table.drop(broken)
    table.put_back(other)
    assert table.take([again(second)])[0] == other
    table.drop(segments + other)
    lease.give_back()
    assert len(open_fds()) == before + 1, "the pool's guard"


def test_one_mapping_of_a_segment_is_kept(table: AttachmentTable, pool: SegmentPool) -> None:
    before = len(open_fds())
    lease = pool.lease(soon(), 1)
    transfers = [table.take([again(lease.segments[0])])[0] for _ in range(3)]
    for segments in transfers:
        table.put_back(segments)
    assert table.count == 1
    assert len(open_fds()) == before + 2, "the guard and one mapping"
    lease.give_back()


def test_more_than_are_kept(pool: SegmentPool) -> None:
    """Those that served least recently make way for one that is attached; a guard counts as well."""
    table = AttachmentTable(kept_max=3)
    leases = [pool.lease(soon(), 1) for _ in range(4)]
    before = len(open_fds())
    first, second, third = [table.take(prepared(lease))[0] for lease in leases[:3]]
    assert len(open_fds()) == before + 4, "what is in use stays"
    for segments in (second, first, third):
        table.put_back(segments)
    fourth, _ = table.take(prepared(leases[3]))
    assert len(open_fds()) == before + 3
    assert table.take(prepared(leases[2]))[0] == third
    assert table.count == 0
    table.drop(third + fourth)
    table.close()
    for lease in leases:
        lease.give_back()


@pytest.mark.parametrize("guard_is_open", [True, False])
def test_without_descriptors_room_is_made(pool: SegmentPool, guard_is_open: bool) -> None:
    """For the guard, for the block, and for the mapping."""
    taken: list[int] = []

    def make_room() -> bool:
        for _ in range(3):
            os.close(taken.pop())
        return True

    table = AttachmentTable(make_room=make_room)
    leases = [pool.lease(soon(), 1) for _ in range(2)]
    if guard_is_open:
        table.put_back(table.take(prepared(leases[1]))[0])
    refs = prepared(leases[0])
    with none_left() as all_taken:
        taken = all_taken
        segments, watch = table.take(refs)
        assert watch.alive()
    table.drop(segments)
    table.close()
    for lease in leases:
        lease.give_back()


def test_without_descriptors_an_idle_segment_gives_its_own(pool: SegmentPool) -> None:
    """When nobody else can; without any it is an error that says so, and the next time it is tried anew."""
    table = AttachmentTable(make_room=lambda: False)
    lease, *idle = [pool.lease(soon(), 1) for _ in range(4)]
    for each in idle:
        table.put_back(table.take(prepared(each))[0])
    refs = prepared(lease)
    with none_left():
        segments, _ = table.take(refs)
        with pytest.raises(LimitReached, match="Too many open files"):
            table.take([again(each.segments[0]) for each in idle])
    table.put_back(table.take([again(each.segments[0]) for each in idle])[0])
    table.drop(segments)
    table.close()
    for each in (lease, *idle):
        each.give_back()


def test_killed_proxy(table: AttachmentTable) -> None:
    source = """
        from shmchannel.streams.pool import SegmentPool
        from shmchannel.deadline import Deadline
        pool = SegmentPool.create(1, 512)
        segment = pool.lease(Deadline.after(5.0)).segments[0]
        print(segment.name, segment.header.prepare())
    """
    with holding(source) as holder:
        name, generation = holder.said[0].split()
        segments, watch = table.take([SegmentRef(name.encode(), int(generation), 512)])
        assert watch.alive()
        assert str(holder.pid) in watch.describe()
        table.put_back(segments)
        holder.kill()
        assert not watch.alive()
        assert table.sweep() == 1
        sweep()
        assert not os.path.exists(SHM_DIRECTORY + name)


def test_many_threads(table: AttachmentTable, pool: SegmentPool) -> None:
    """Transfers of four threads with a sweeper beside them: each finds its own segments, mapped."""
    stop = threading.Event()

    def transfer() -> None:
        for number in range(150):
            lease = pool.lease(soon(), 1)
            segments, watch = table.take(prepared(lease))
            assert watch.alive()
            segments[0].chunk[:4] = lease.segments[0].wire_name[-4:]
            assert bytes(lease.segments[0].chunk[:4]) == lease.segments[0].wire_name[-4:]
            if number % 10 == 0:
                table.drop(segments)
                lease.retire()
            else:
                table.put_back(segments)
                lease.give_back()

    def sweep_on() -> None:
        while not stop.is_set():
            table.sweep()

    with in_thread(sweep_on):
        try:
            with ExitStack() as threads:
                for _ in range(4):
                    threads.enter_context(in_thread(partial(transfer)))
        finally:
            stop.set()
    assert pool.stats().segments_leased == 0
