"""The survey says of each segment what its semaphores and its header say, and of strangers nothing."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from shmchannel.process.identity import own_identity
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.streams.layout import FAILED, LAST, NOT_FOUND, OK, PREAMBLE
from shmchannel.streams.pool import SegmentPool
from shmchannel.streams.segment import Segment
from shmchannel.streams.survey import SegmentState, SegmentView, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = 4096


@pytest.fixture
def pool() -> Iterator[SegmentPool]:
    with closing(SegmentPool.create(12, BYTES)) as pool:
        yield pool


def views_of(pool: SegmentPool) -> list[SegmentView]:
    return [view for view in survey() if view.pool == pool.name]


def test_fresh_segments_are_unused_and_come_by_number(pool: SegmentPool) -> None:
    views = views_of(pool)
    assert [int(view.name.rpartition("-")[2]) for view in views] == list(range(12))
    assert {view.state for view in views} == {SegmentState.UNUSED}
    assert {(view.owner_pid, view.owner_lives, view.segment_bytes) for view in views} == {(os.getpid(), True, BYTES)}


@pytest.fixture
def segment(pool: SegmentPool) -> Iterator[Segment]:
    segment = Segment.attach(f"/{views_of(pool)[0].name}")
    segment.header.prepare()
    yield segment
    segment.close()


def view_of(segment: Segment) -> SegmentView:
    return next(view for view in survey() if f"/{view.name}" == segment.name)


def test_the_states_of_a_transfer(segment: Segment) -> None:
    own, header = own_identity(), segment.header
    assert view_of(segment).state is SegmentState.EMPTY
    assert segment.space_available.try_take()
    assert view_of(segment).state is SegmentState.IN_USE
    header.write_object(10_000, 7, 0, own)
    header.write_chunk(OK, 3000, 4000, 0)
    segment.data_available.post()
    view = view_of(segment)
    assert (view.state, view.done_bytes, view.object_bytes) == (SegmentState.FULL, 7000, 10_000)
    assert (view.producer_pid, view.generation) == (os.getpid(), 1)
    assert segment.data_available.try_take()
    assert view_of(segment).state is SegmentState.IN_USE
    segment.space_available.post()
    assert view_of(segment).state is SegmentState.EMPTY
    header.write_chunk(OK, 3000, 7000, LAST)
    assert view_of(segment).state is SegmentState.AT_REST


@pytest.mark.parametrize("status", [NOT_FOUND, FAILED])
def test_a_refusal_ends_a_transfer(segment: Segment, status: int) -> None:
    segment.header.write_chunk(status, 0, 0, 0)
    assert view_of(segment).state is SegmentState.AT_REST


def test_a_preamble_is_no_part_of_the_object(segment: Segment) -> None:
    segment.header.write_object(10, 7, 5000, own_identity())
    segment.header.write_chunk(OK, 3000, 0, PREAMBLE)
    assert view_of(segment).done_bytes == 0


def test_what_is_no_segment_is_left_out(pool: SegmentPool) -> None:
    before = views_of(pool)
    path = f"{SHM_DIRECTORY}/{before[0].name.rpartition('-')[0]}-99"
    with open(path, "xb") as file:
        file.write(bytes(BYTES))
    try:
        assert views_of(pool) == before
    finally:
        os.unlink(path)
