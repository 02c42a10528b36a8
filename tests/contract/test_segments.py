"""Both kinds of segments keep the contract."""

from shmchannel.streams.segment import Segment
from shmchannel.testing import MemorySegment
from tests.contract.segment_contract import SegmentContract


class TestPosixSegment(SegmentContract):
    """Shared memory."""

    segment_type = Segment


class TestMemorySegment(SegmentContract):
    """The fake."""

    segment_type = MemorySegment
