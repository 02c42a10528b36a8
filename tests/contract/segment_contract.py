"""The contract of every segment, in shared memory and in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from shmchannel.errors import ChannelTimeout, LayoutMismatch, NameMissing, NameTaken, PeerGone, UsageError
from shmchannel.process.identity import own_identity
from shmchannel.streams.layout import HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN
from shmchannel.streams.segment import Segment
from shmchannel.sync.semaphore import next_look
from shmchannel.testing import ManualPeer
from tests.support.channels import SEGMENT_BYTES, address_in, in_thread, semaphores, unique_segment
from tests.support.waiting import WATCHDOG_S


class SegmentContract:
    """Subclasses name the type."""

    segment_type: type[Segment]

    @pytest.fixture
    def owned(self) -> Iterator[Segment]:
        segment = self.segment_type.create(unique_segment(), SEGMENT_BYTES, own_identity())
        yield segment
        segment.unlink()
        segment.close()

    @pytest.fixture
    def attached(self, owned: Segment) -> Iterator[Segment]:
        segment = self.segment_type.attach(owned.name)
        yield segment
        segment.close()

    def test_fresh_segment(self, owned: Segment) -> None:
        assert owned.is_owner
        assert owned.segment_bytes == SEGMENT_BYTES
        assert owned.chunk_capacity == len(owned.chunk) == SEGMENT_BYTES - HEADER_BYTES
        assert owned.wire_name == owned.name.encode()
        assert owned.header.generation == 0
        assert semaphores(owned) == (0, 1)
        assert not any(owned.chunk)

    def test_attached_is_the_same_memory(self, owned: Segment, attached: Segment) -> None:
        assert not attached.is_owner
        assert attached.segment_bytes == owned.segment_bytes
        owned.chunk[:5] = b"hello"
        owned.header.prepare()
        owned.data_available.post()
        assert bytes(attached.chunk[:5]) == b"hello"
        assert attached.header.generation == 1
        assert attached.data_available.try_take()
        assert semaphores(owned) == (0, 1)

    def test_chunk_address_is_where_the_chunk_lies(self, owned: Segment) -> None:
        owned.chunk[:5] = b"hello"
        owned.chunk[-1] = 0x7F
        assert ctypes.string_at(owned.chunk_address, 5) == b"hello"
        assert ctypes.string_at(owned.chunk_address + owned.chunk_capacity - 1, 1) == b"\x7f"

    @pytest.mark.parametrize("size", [0, SEGMENT_BYTES_MIN - 1, SEGMENT_BYTES_MAX + 1, -1])
    def test_size_out_of_range(self, size: int) -> None:
        name = unique_segment()
        with pytest.raises(UsageError, match=str(size)):
            self.segment_type.create(name, size, own_identity())
        with pytest.raises(NameMissing):
            self.segment_type.attach(name)

    def test_name_taken(self, owned: Segment) -> None:
        owned.chunk[:3] = b"old"
        with pytest.raises(NameTaken):
            self.segment_type.create(owned.name, SEGMENT_BYTES, own_identity())
        assert bytes(owned.chunk[:3]) == b"old"

    def test_not_published(self, owned: Segment) -> None:
        ctypes.memset(address_in(owned, 0), 0, 8)
        with pytest.raises(LayoutMismatch, match="not published"):
            self.segment_type.attach(owned.name)

    def test_only_the_owner_unlinks(self, owned: Segment, attached: Segment) -> None:
        with pytest.raises(UsageError):
            attached.unlink()
        self.segment_type.attach(owned.name).close()

    def test_memory_outlives_the_name(self, owned: Segment, attached: Segment) -> None:
        owned.unlink()
        with pytest.raises(NameMissing):
            self.segment_type.attach(owned.name)
        attached.chunk[:4] = b"late"
        assert bytes(owned.chunk[:4]) == b"late"
        replacement = self.segment_type.create(owned.name, SEGMENT_BYTES, own_identity())
        try:
            assert not any(replacement.chunk)
        finally:
            replacement.unlink()
            replacement.close()

    def test_unlink_and_close_twice(self) -> None:
        segment = self.segment_type.create(unique_segment(), SEGMENT_BYTES, own_identity())
        for _ in range(2):
            segment.unlink()
            segment.close()

    # -- its semaphores ------------------------------------------------------------------------------------------
    def test_take_and_post(self, owned: Segment) -> None:
        semaphore = owned.data_available
        assert not semaphore.try_take()
        semaphore.post()
        semaphore.post()
        assert semaphore.value == 2
        semaphore.take(0.0, ManualPeer())
        semaphore.take(-1.0, ManualPeer())
        assert semaphore.value == 0

    def test_timeout(self, owned: Segment) -> None:
        with pytest.raises(ChannelTimeout, match="data_available"):
            owned.data_available.take(0.01, ManualPeer())
        with pytest.raises(ChannelTimeout):
            owned.data_available.take(-1.0, ManualPeer())

    def test_dead_peer(self, owned: Segment) -> None:
        peer = ManualPeer("a dead one")
        peer.end()
        with pytest.raises(PeerGone, match="a dead one"):
            owned.data_available.take(WATCHDOG_S, peer)

    def test_what_a_dead_peer_posted_is_taken(self, owned: Segment) -> None:
        peer = ManualPeer()
        peer.end()
        owned.data_available.post()
        owned.data_available.take(WATCHDOG_S, peer)

    def test_post_in_the_moment_of_death_is_taken(self, owned: Segment) -> None:
        class PostsAndDies(ManualPeer):
            def alive(self) -> bool:
                owned.data_available.post()
                return False

        owned.data_available.take(WATCHDOG_S, PostsAndDies())
        assert owned.data_available.value == 0

    def test_wakes_a_waiter(self, owned: Segment, attached: Segment) -> None:
        with in_thread(lambda: owned.data_available.take(WATCHDOG_S, ManualPeer())) as taken:
            attached.data_available.post()
        assert taken.result() is None
        assert semaphores(owned) == (0, 1)

    def test_wait_up_to_a_moment(self, owned: Segment, attached: Segment) -> None:
        """The same moment serves many waits; a post that was there, or that comes, is taken."""
        semaphore, look = owned.data_available, next_look()
        semaphore.post()
        assert semaphore.wait_until(look) == 0
        assert semaphore.value == 0
        with in_thread(lambda: 0 if semaphore.wait_until(look) == 0 else semaphore.take(WATCHDOG_S, ManualPeer())):
            attached.data_available.post()
        assert semaphore.value == 0

    def test_a_moment_that_has_passed(self, owned: Segment) -> None:
        look = bytes(len(next_look()))
        assert owned.data_available.wait_until(look) != 0
        owned.data_available.post()
        assert owned.data_available.wait_until(look) == 0
