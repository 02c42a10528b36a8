"""Fixtures for the unit tests of the proxy."""

from collections.abc import Iterator

import pytest

from tests.support.pairs import MemoryPair


@pytest.fixture
def pair() -> Iterator[MemoryPair]:
    """A client and a cache in this process, over the fakes."""
    with MemoryPair() as living:
        yield living
