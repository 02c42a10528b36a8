"""The pair that scripts start: nothing of it is left running, whenever the signal to end comes."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import daemons
from scripts.daemons import ENDING_SIGNALS, PairOptions, interrupt_on_ending_signals, running_pair
from tests.support.waiting import WATCHDOG_S


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process come back."""
    before = {signum: signal.getsignal(signum) for signum in ENDING_SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("signum", sorted(ENDING_SIGNALS))
def test_a_signal_while_a_daemon_starts_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    children: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def signalled(*_: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(popen(["sleep", "3600"], **options))
        os.kill(os.getpid(), signum)
        return children[-1]

    monkeypatch.setattr(daemons.subprocess, "Popen", signalled)
    interrupt_on_ending_signals()
    try:
        with pytest.raises(KeyboardInterrupt), running_pair(PairOptions(), str(tmp_path), "test"):
            pass
        assert [child.poll() for child in children] == [-signal.SIGTERM]
    finally:
        for child in children:
            child.kill()
            child.wait(WATCHDOG_S)
