"""HttpFetches: whose answer is waited for, and whose is not because it was of no use the last time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.support.fetching import http_fetches, table_of, wait_answer
from tests.support.http_values import request
from tests.support.sinks import running_driver
from tests.support.waiting import wait_until
from webproxy.fetch.http_fetch import FetchRequest, HttpFetches
from webproxy.fetch.spool import Head, SpoolReader
from webproxy.fetch.table import FetchTable, Opened
from webproxy.origin.routing import OriginRule, Target
from workloads.origin_stub import OriginStub, Route


@contextmanager
def asking(route: Route) -> Iterator[tuple[HttpFetches, FetchTable, FetchRequest]]:
    with OriginStub({"/x": route}) as origin, running_driver() as driver, table_of() as table:
        target = Target(b"/x", OriginRule(url=origin.url, tries=1), origin.url, b"/x", b"/x")
        yield (
            http_fetches(table, driver),
            table,
            FetchRequest(target, request()),
        )


def opened(fetches: HttpFetches, wanted: FetchRequest) -> Opened:
    found = fetches.open(wanted, math.inf)
    assert found is not None
    return found


def answer(reader: SpoolReader) -> Head:
    head = wait_answer(reader)
    assert isinstance(head, Head)
    reader.close()
    return head


def held(gate: threading.Event, control: str, status: int = 200) -> Route:
    return Route(status=status, headers={"Cache-Control": control}, hold=gate, hold_head=True)


@pytest.mark.parametrize(
    ("control", "status", "waits"),
    [
        pytest.param("private", 200, False, id="for-one"),
        pytest.param("no-store", 404, False, id="for-one-who-asked-for-nothing"),
        pytest.param("max-age=60", 200, True, id="for-everybody"),
        pytest.param("no-store", 503, True, id="of-an-origin-in-trouble"),
    ],
)
def test_who_would_wait_in_vain_does_not_wait(control: str, status: int, waits: bool) -> None:
    gate = threading.Event()
    with asking(held(gate, control, status)) as (fetches, table, wanted):
        first, second = opened(fetches, wanted), opened(fetches, wanted)
        assert (first[1], second[1]) == (False, True)
        gate.set()
        fetches.mark_unshareable(wanted, answer(second[0]))
        answer(first[0])
        wait_until(lambda: not table.living)
        gate.clear()
        third, fourth = opened(fetches, wanted), opened(fetches, wanted)
        assert (third[1], fourth[1]) == (False, waits)
        gate.set()
        answer(third[0])
        answer(fourth[0])


def test_an_answer_for_everybody_is_waited_for_again() -> None:
    gate = threading.Event()
    with asking(held(gate, "max-age=60")) as (fetches, table, wanted):
        gate.set()
        fetches.mark_unshareable(wanted, replace(answer(opened(fetches, wanted)[0]), is_shareable=False))
        wait_until(lambda: not table.living)
        assert not opened_and_left(fetches, wanted)
        wait_until(lambda: not table.living)
        gate.clear()
        readers = [opened(fetches, wanted) for _ in range(2)]
        assert [joined for _, joined in readers] == [False, True]
        gate.set()
        for reader, _ in readers:
            answer(reader)


def opened_and_left(fetches: HttpFetches, wanted: FetchRequest) -> bool:
    """Whether a request would have joined another; its own answer has come when this returns."""
    reader, joined = opened(fetches, wanted)
    answer(reader)
    return joined
