"""Scenario tests start daemons also by commands of ours, which do not wait for room for their queue."""

from collections.abc import Iterator

import pytest

from tests.support.queue_room import wait_for_queue_room
from workloads.origin_stub import OriginStub


@pytest.fixture(autouse=True)
def queue_room() -> None:
    """The test begins when there is room for a queue."""
    wait_for_queue_room()


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    """An origin to which the test adds its routes."""
    with OriginStub({}) as stub:
        yield stub
