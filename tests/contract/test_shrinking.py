"""A lease that shrinks while an end dies keeps the contract over both kinds of segments."""

from shmchannel.streams.segment import Segment
from shmchannel.testing import MemorySegment
from tests.contract.shrinking_contract import ShrinkingContract


class TestPosixShrinking(ShrinkingContract):
    """Over shared memory."""

    segment_type = Segment


class TestMemoryShrinking(ShrinkingContract):
    """Over the fakes."""

    segment_type = MemorySegment
