"""The pool keeps the contract over both kinds of segments."""

from shmchannel.streams.segment import Segment
from shmchannel.testing import MemorySegment
from tests.contract.pool_contract import PoolContract
from tests.contract.ticket_contract import PlaceContract


class TestPosixPool(PoolContract, PlaceContract):
    """Over shared memory."""

    segment_type = Segment


class TestMemoryPool(PoolContract, PlaceContract):
    """Over the fakes."""

    segment_type = MemorySegment
