"""Fixtures for all tests: daemons that end with the test, and a check that the test left nothing behind."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import names
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import wait_until

_THREADS_WATCHDOG_S = 10.0

settings.register_profile("patient", settings(), deadline=None)  # how long an example takes is no fault of the code
settings.register_profile("few", deadline=None, max_examples=10)
settings.register_profile("many", deadline=None, max_examples=1500)  # by hand, after a change of the rules
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts whole daemons: `scripts/test --fast` leaves it out."""
    for item in items:
        if "yard" in getattr(item, "fixturenames", ()):
            item.add_marker("daemons")


def pytest_collection_finish() -> None:
    """Eight thousand collected tests live to the end: the garbage collector need not walk them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail the test that leaves an OS name of ours or a thread; set up first, so that it looks last."""
    names.forget_ended()
    names_before = names.listing()
    threads_before = set(threading.enumerate())
    yield
    leaked = names.leaked_since(names_before)
    assert not leaked, f"names left behind: {leaked}"
    if set(threading.enumerate()) <= threads_before:
        return

    def extra_threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in threads_before]

    wait_until(lambda: not extra_threads(), _THREADS_WATCHDOG_S, what=f"the end of {extra_threads()}")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    """Where this test's daemons live: one queue name, ended and swept after the test."""
    with DaemonYard(tmp_path) as living:
        yield living


@pytest.fixture
def start_cache(yard: DaemonYard) -> Callable[..., DaemonProcess]:
    """`start_cache(*arguments, content=..., env=..., wait=True)`: a cache on the test's queue."""
    return yard.start_cache


@pytest.fixture
def start_proxy(yard: DaemonYard) -> Callable[..., DaemonProcess]:
    """`start_proxy(*arguments, env=..., wait=True)`: a proxy on the test's queue; see its `port`."""
    return yard.start_proxy
