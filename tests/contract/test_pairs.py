"""Client and server keep the contract over shared memory and over the fakes."""

from tests.contract.pair_contract import PairContract
from tests.support.pairs import MemoryPair, Pair


class TestPosixPair(PairContract):
    """Segments, guards and message queues."""

    pair_type = Pair


class TestMemoryPair(PairContract):
    """The fakes."""

    pair_type = MemoryPair
