"""The wait for room under RLIMIT_MSGQUEUE, by which tests leave other pairs theirs."""

import resource
from collections.abc import Iterator

import pytest

from tests.support.channels import unique_queue
from tests.support.queue_room import wait_for_queue_room


@pytest.fixture
def no_room() -> Iterator[None]:
    """The limit is used up."""
    before = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, before)


def test_asking_takes_nothing() -> None:
    before = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    for _ in range(100):
        wait_for_queue_room()
    assert resource.getrlimit(resource.RLIMIT_MSGQUEUE) == before


def test_no_room_is_told_as_that(no_room: None) -> None:
    with pytest.raises(AssertionError, match=r"4,096 bytes a user \(RLIMIT_MSGQUEUE\), used by"):
        wait_for_queue_room(watchdog_s=0.0)
    assert resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0] == 4096


def test_a_queue_name_is_given_when_there_is_room() -> None:
    assert unique_queue() != unique_queue()
