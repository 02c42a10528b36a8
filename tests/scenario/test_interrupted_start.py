"""Ctrl-C while a program still imports, or before it waits for signals: one exit code and no traceback."""

import signal
import subprocess
import sys

import pytest

from tests.support.waiting import WATCHDOG_S

INTERRUPTED = 130
# Runs a program that gets a signal when it comes to the moment named: an import, or the call of a function.
INTERRUPTING = """
import os, runpy, signal, sys
signum, program, moment, *sys.argv[1:] = sys.argv[1:]
def interrupt_at(name):
    if name == moment:
        os.kill(os.getpid(), int(signum))
sys.addaudithook(lambda event, arguments: interrupt_at(arguments[0]) if event == "import" else None)
sys.setprofile(lambda frame, event, _: interrupt_at(frame.f_code.co_name) if event == "call" else None)
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("program", "moment", "arguments"),
    [
        ("simplecached", "simplecached.cli", ()),
        ("simplecached", "simplecached.daemon.app", ()),
        ("simplecached", "raise_file_limit", ()),
        ("webproxy", "webproxy.cli", ()),
        ("webproxy", "webproxy.daemon.config", ()),
        ("workloads.gfclient", "workloads.gfclient.cli", ("download", "/file")),
    ],
)
def test_ctrl_c_during_the_start(program, moment, arguments):
    command = [sys.executable, "-c", INTERRUPTING, str(int(signal.SIGINT)), program, moment, *arguments]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (INTERRUPTED, "", "")


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize(("program", "moment"), [("simplecached", "simplecached.daemon.app"), ("webproxy", "pycurl")])
def test_other_signals_during_the_start_end_nothing(program, moment, signum):
    command = [sys.executable, "-c", INTERRUPTING, str(int(signum)), program, moment, "--check-config"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    assert ended.returncode == 0
