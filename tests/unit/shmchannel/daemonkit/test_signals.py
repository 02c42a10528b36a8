"""Is no signal lost, none acted on by a handler, and every handler given back?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit.signals import ending_signals, insist, trapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_S = 60.0


@pytest.fixture(autouse=True)
def handlers_given_back() -> Iterator[None]:
    watched = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGPIPE)
    before = [signal.getsignal(signum) for signum in watched]
    descriptors = sorted(os.listdir("/proc/self/fd"))
    yield
    assert [signal.getsignal(signum) for signum in watched] == before
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert signal.set_wakeup_fd(-1) == -1


def test_signals_in_the_order_they_came() -> None:
    with trapped(signal.SIGUSR1, signal.SIGUSR2) as signals:
        assert signals.wait(0) == []
        for signum in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1):
            signal.raise_signal(signum)
        assert signals.wait(LONG_S) == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR1]
        assert signals.wait(0) == []


def test_interrupt_is_no_exception() -> None:
    with trapped(signal.SIGINT) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.wait(LONG_S) == [signal.SIGINT]


def test_more_signals_than_one_read_takes() -> None:
    with trapped(signal.SIGUSR1) as signals:
        for _ in range(5000):
            signal.raise_signal(signal.SIGUSR1)
        assert len(signals.wait(LONG_S)) == 5000


def test_signal_that_hits_another_thread() -> None:
    finish = threading.Event()
    thread = threading.Thread(target=finish.wait, args=(LONG_S,))
    thread.start()
    try:
        with trapped(signal.SIGUSR1) as signals:
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            assert signals.wait(LONG_S) == [signal.SIGUSR1]
    finally:
        finish.set()
        thread.join()


def test_other_handlers_still_run() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda signum, _frame: heard.append(signum))
    try:
        with trapped(signal.SIGUSR1) as signals:
            signal.raise_signal(signal.SIGUSR2)
            assert signals.wait(LONG_S) == []
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]


def test_inner_trap_takes_over_and_gives_back() -> None:
    with trapped(signal.SIGUSR1) as outer:
        with trapped(signal.SIGUSR1) as inner:
            signal.raise_signal(signal.SIGUSR1)
            assert inner.wait(LONG_S) == [signal.SIGUSR1]
        signal.raise_signal(signal.SIGUSR1)
        assert outer.wait(LONG_S) == [signal.SIGUSR1]


@pytest.mark.parametrize("signum", [signal.SIGKILL, 9999])
def test_signal_that_cannot_be_handled_leaves_all_as_it_was(signum: int) -> None:
    with pytest.raises((OSError, ValueError)):
        trapped(signal.SIGUSR1, signum).__enter__()


def test_only_in_the_main_thread() -> None:
    errors: list[ValueError] = []

    def enter() -> None:
        try:
            trapped(signal.SIGUSR1).__enter__()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


@pytest.fixture
def start() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program that says `ready` when its trap is set; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> subprocess.Popen[str]:
        text = "import os, signal\nfrom shmchannel.daemonkit.signals import trapped\n" + textwrap.dedent(program)
        process = subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert line_of(process) == "ready"
        return process

    yield run
    for process in started:
        with process:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_daemon_hears_each_signal_while_it_waits(start: Callable[[str], subprocess.Popen[str]]) -> None:
    daemon = start("""
        with trapped(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            print("ready")
            heard = []
            while heard.count(signal.SIGTERM) < 2:
                heard += signals.wait(60)
                print(*[signal.Signals(signum).name for signum in heard])
        print("stopped")
    """)
    expected: list[str] = []
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        daemon.send_signal(signum)
        expected.append(signum.name)
        assert line_of(daemon) == " ".join(expected)
    assert line_of(daemon) == "stopped"
    assert daemon.wait(60) == 0


def test_default_action_is_back_after_the_trap(start: Callable[[str], subprocess.Popen[str]]) -> None:
    daemon = start("""
        with trapped(signal.SIGTERM) as signals:
            pass
        print("ready")
        signal.pause()
    """)
    daemon.terminate()
    assert daemon.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (signal.SIG_DFL, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)),
        (signal.SIG_IGN, (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_what_ends_a_daemon(handler: signal.Handlers, expected: tuple[int, ...]) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert ending_signals() == expected
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("more", "expected"),
    [([], False), ([signal.SIGHUP], False), ([signal.SIGHUP, signal.SIGINT], True), ([signal.SIGTERM], True)],
)
def test_who_asks_again_insists(more: list[int], expected: bool) -> None:
    assert insist(more) is expected
