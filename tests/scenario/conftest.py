"""Scenario tests start daemons also by commands of ours, which do not wait for room for their queue."""

import pytest

from tests.support.queue_room import wait_for_queue_room


@pytest.fixture(autouse=True)
def queue_room() -> None:
    """The test begins when there is room for a queue."""
    wait_for_queue_room()
