"""Is no signal lost, none acted on by a handler, and every handler given back?"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit.signals import insist, trapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONG_S = 60.0
PREAMBLE = "import os, signal\nfrom shmchannel.daemonkit.signals import trapped\n"


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


def test_what_shall_be_ignored_afterwards_is() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with trapped(signal.SIGUSR1, signal.SIGUSR2, ignored_afterwards=(signal.SIGUSR1,)):
            pass
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


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
        text = PREAMBLE + textwrap.dedent(program)
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


HEARS_WISHES = """
    import sys
    from shmchannel.daemonkit.signals import SIGNALS, Wishes, ignores_hangup

    def say(text):
        with open(sys.argv[1] if sys.argv[1:] else "/dev/stdout", "w") as heard:
            print(text, file=heard)

    survives_hangup = ignores_hangup()
    with trapped(*SIGNALS) as signals:
        wishes = Wishes(signals, survives_hangup=survives_hangup)
        say("ready")
        while True:
            say(*[wish.value for wish in wishes.wait(60)] or ["nothing"])
"""


@pytest.mark.parametrize(
    ("signum", "wish"),
    [
        (signal.SIGTERM, "stop"),
        (signal.SIGINT, "stop"),
        (signal.SIGUSR1, "reopen logs"),
        (signal.SIGUSR2, "upgrade"),
    ],
)
def test_what_signals_mean(start: Callable[[str], subprocess.Popen[str]], signum: int, wish: str) -> None:
    daemon = start(HEARS_WISHES)
    daemon.send_signal(signum)
    assert line_of(daemon) == wish


def test_without_a_terminal_a_hangup_is_a_wish_to_reload(start: Callable[[str], subprocess.Popen[str]]) -> None:
    daemon = start("    os.setsid()" + HEARS_WISHES)
    for _ in range(2):
        daemon.send_signal(signal.SIGHUP)
        assert line_of(daemon) == "reload"


@pytest.mark.parametrize(("wrap", "wish"), [((), "stop"), (("nohup",), "nothing")], ids=["", "under nohup"])
def test_a_terminal_that_closes_ends_a_daemon(wrap: tuple[str, ...], wish: str, tmp_path: Path) -> None:
    """As long as the terminal is there, a hangup is a wish to reload."""
    heard = tmp_path / "heard"
    os.mkfifo(heard)
    command = [*wrap, sys.executable, "-c", PREAMBLE + textwrap.dedent(HEARS_WISHES), str(heard)]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)  # where nohup keeps what is printed
        os.execvp(command[0], command)
    try:
        assert heard.read_text() == "ready\n"
        os.kill(child, signal.SIGHUP)
        assert heard.read_text() == "reload\n"
        os.close(terminal)
        assert heard.read_text() == f"{wish}\n"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("more", "expected"),
    [([], 0), ([signal.SIGHUP], 0), ([signal.SIGHUP, signal.SIGINT], 1), ([signal.SIGTERM, signal.SIGINT], 2)],
)
def test_who_asks_again_insists(more: list[int], expected: int) -> None:
    assert insist(more) == expected
