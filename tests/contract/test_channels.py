"""Both ends keep the contract over both kinds of segments."""

from shmchannel.streams.segment import Segment
from shmchannel.testing import MemorySegment
from tests.contract.channel_contract import ChannelContract


class TestPosixChannel(ChannelContract):
    """Over shared memory."""

    segment_type = Segment


class TestMemoryChannel(ChannelContract):
    """Over the fakes."""

    segment_type = MemorySegment
