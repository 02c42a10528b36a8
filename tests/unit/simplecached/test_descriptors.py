"""The plan of descriptors adds up to less than the limit; holders of idle ones close some when none is left."""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import TYPE_CHECKING

import pytest

from shmchannel.streams.attachments import KEPT_MAX
from simplecached import descriptors
from simplecached.descriptors import ENTRIES_MAX, LIMIT_ENOUGH, DescriptorPlan, Descriptors, plan_descriptors
from tests.support.descriptors import none_left

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = 256


def plan_of(limit: int, *, threads: int = 8, has_static: bool = True, in_memory: bool = True) -> DescriptorPlan:
    return plan_descriptors(limit, worker_threads=threads, has_static=has_static, in_memory=in_memory)


@pytest.mark.parametrize("has_static", [True, False])
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("limit", [512, 1024, 2048, 4096, 20_000, 65_536, 1_048_576, resource.RLIM_INFINITY])
def test_all_parts_together_stay_below_the_limit(limit: int, in_memory: bool, has_static: bool) -> None:
    plan = plan_of(limit, has_static=has_static, in_memory=in_memory)
    files = plan.static_files_max + plan.store_files_max
    paused = plan.paused_max if has_static or not in_memory else 0
    objects = plan.objects_max if in_memory else 0
    start_of_a_cache, segments_of_a_transfer, its_file = 16, 4, 1
    workers = 8 * (segments_of_a_transfer + its_file)
    assert start_of_a_cache + workers + files + paused + plan.segments_max + objects < plan.limit


@pytest.mark.parametrize(
    ("limit", "objects_max"), [(1024, 544), (2048, 1184), (4096, 2976), (65_536, 56_736), (2_000_000, ENTRIES_MAX)]
)
def test_objects_in_memory_have_what_the_others_leave(limit: int, objects_max: int) -> None:
    assert plan_of(limit).objects_max == objects_max


def test_from_some_limit_on_each_part_has_all_that_it_can_use() -> None:
    plan = plan_of(LIMIT_ENOUGH, in_memory=False)
    assert not plan.is_short
    assert (plan.static_files_max, plan.store_files_max, plan.paused_max) == (FULL, FULL, FULL)
    assert plan_of(1 << 20).segments_max == KEPT_MAX
    assert plan_of(LIMIT_ENOUGH - 1, in_memory=False).is_short


def test_a_low_limit_leaves_each_part_a_share() -> None:
    plan = plan_of(64)
    assert plan.is_short
    assert (plan.static_files_max, plan.paused_max, plan.objects_max) == (8, 8, 8)
    assert plan_of(1).objects_max == 1


def test_many_threads_need_a_higher_limit() -> None:
    assert plan_of(LIMIT_ENOUGH, threads=256).is_short
    assert not plan_of(2 * LIMIT_ENOUGH, threads=256).is_short


def test_a_part_that_is_not_there_has_none() -> None:
    assert plan_of(1024, has_static=False).static_files_max == 0
    assert plan_of(1024).store_files_max == 0
    assert plan_of(1024, has_static=False).objects_max == 544 + 128 + 128
    assert plan_of(1024, in_memory=False).objects_max == ENTRIES_MAX


def giving(taken: list[int], count: int) -> Callable[[], int]:
    """A giver that closes up to so many of these at a time."""

    def give() -> int:
        given = min(count, len(taken))
        for _ in range(given):
            os.close(taken.pop())
        return given

    return give


def open_null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def test_one_is_closed_when_none_is_left() -> None:
    spare = Descriptors()
    with none_left() as taken:
        count = len(taken)
        spare.add_giver(giving(taken, 1))
        taken.append(spare.open(open_null))
        assert len(taken) == count
        os.close(taken.pop())
        taken.append(spare.open(open_null))
        assert len(taken) == count, "there was one: nobody is asked"


def test_the_first_giver_that_can_gives() -> None:
    spare = Descriptors()
    asked: list[str] = []

    def give(name: str, count: int) -> Callable[[], int]:
        return lambda: asked.append(name) or count  # type: ignore[func-returns-value]

    for name, count in (("none", 0), ("few", 1), ("enough", 100), ("not asked", 1)):
        spare.add_giver(give(name, count))
    assert spare.free()
    assert asked == ["none", "few", "enough"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_what_cannot_be_opened_at_the_second_try_is_an_error(code: int) -> None:
    calls: list[int] = []

    def refuse() -> int:
        calls.append(code)
        raise OSError(code, os.strerror(code))

    spare = Descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        spare.open(refuse)
    assert len(calls) == 1, "nobody gave any"
    spare.add_giver(lambda: 1)
    with pytest.raises(OSError, match="Too many open files"):
        spare.open(refuse)
    assert len(calls) == 3


def test_other_errors_take_nothing_from_anybody() -> None:
    spare = Descriptors()
    spare.add_giver(lambda: pytest.fail("asked"))
    with pytest.raises(FileNotFoundError):
        spare.open(lambda: os.open("/nowhere", os.O_RDONLY))


def test_it_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr(descriptors, "monotonic_ns", lambda: now[0])
    spare = Descriptors()
    spare.add_giver(lambda: 5)
    for _ in range(3):
        spare.free()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage(), record.__dict__["freed"]) == (logging.WARNING, "out of descriptors", 5)
    now[0] += 60_000_000_000
    spare.free()
    assert len(caplog.records) == 2
