"""`webproxy reload` and `webproxy upgrade`: send the signal to the running proxy, and wait for what becomes of it.

The proxy is found in the registry: its supervisor, or itself if it is one process. What became of a wish is said by its
announcement, which is made anew with each result (`steering.py`).
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence

from shmchannel.daemonkit.exits import ExitCode
from shmchannel.deadline import Deadline
from shmchannel.registry import Member, Registry, RoleWatch
from webproxy.daemon.steering import ANSWERED, RESULT, SLOT, SUPERVISOR, is_refusal

_SIGNALS = {"reload": signal.SIGHUP, "upgrade": signal.SIGUSR2}
_DESCRIPTIONS = {
    "reload": "Have a running proxy read its settings again, without losing a request. If they are refused, it goes on"
    " as it was.",
    "upgrade": "Have a running proxy start its program anew and hand its socket over, without losing a request.",
}
COMMANDS = tuple(_SIGNALS)
_WAIT_MAX_S = 86400.0


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one of COMMANDS with the arguments after it; returns the exit code: 0 if the wish was fulfilled."""
    prog = f"webproxy {command}"
    given = parser(command).parse_args(arguments)
    running = running_proxies(Registry(), given.port)
    if len(running) != 1:
        sys.stderr.write(f"{prog}: {_which(running, given.port)}\n")
        return int(ExitCode.FAILED)
    try:
        result = steer(running[0], _SIGNALS[command], Deadline.after(given.wait_s))
    except PermissionError as error:
        result = f"refused: {error}"
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    if result is None:
        sys.stderr.write(f"{prog}: no answer within {given.wait_s:g} s: see the log of the proxy\n")
        return int(ExitCode.FAILED)
    (sys.stderr if is_refusal(result) else sys.stdout).write(f"{prog}: {result}\n")
    return int(ExitCode.FAILED if is_refusal(result) else ExitCode.OK)


def running_proxies(registry: Registry, port: int | None) -> list[Member]:
    """The processes that can be steered: supervisors, and proxies without one; with a port, those that listen there."""
    alone = [member for member in registry.find("proxy") if SLOT not in member.entry.facts]
    found = [*registry.find(SUPERVISOR), *alone]
    return [member for member in found if port is None or member.entry.address.endswith(f":{port}")]


def steer(member: Member, signum: int, deadline: Deadline) -> str | None:
    """Send the signal and wait for the result; None: there was none before the deadline.

    Raises:
        PermissionError: the process belongs to another user.
    """
    pid, before = member.identity.pid, member.entry.facts.get(ANSWERED, "0")
    with RoleWatch(Registry(), member.entry.role) as watch:
        watch.look()
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return f"refused: process {pid} has ended"
        try:
            signal.pidfd_send_signal(pidfd, signum)
        finally:
            os.close(pidfd)
        while not deadline.expired:
            now = watch.members.get(member.name)
            if now is None or now.identity != member.identity:
                if (successor := _successor(member)) is not None:
                    return f"process {pid} is replaced by process {successor.identity.pid}"
            elif now.entry.facts.get(ANSWERED, "0") != before:
                return now.entry.facts.get(RESULT, "")
            watch.wait(deadline.sooner(1.0))
    return None


def _successor(member: Member) -> Member | None:
    """Who listens at the address now. While a process announces itself anew, there is nobody for a moment."""
    there = [other for other in running_proxies(Registry(), None) if other.entry.address == member.entry.address]
    return next((other for other in there if other.identity != member.identity), None)


def _which(running: Sequence[Member], port: int | None) -> str:
    if not running:
        where = "" if port is None else f" on port {port}"
        return f"no proxy of this user runs{where}, or it has not announced itself"
    addresses = ", ".join(sorted(member.entry.address for member in running))
    return f"{len(running)} proxies run: {addresses}. Choose one by -p PORT"


def parser(command: str) -> argparse.ArgumentParser:
    """The command line after one of COMMANDS."""
    found = argparse.ArgumentParser(prog=f"webproxy {command}", description=_DESCRIPTIONS[command], allow_abbrev=False)
    found.add_argument("-p", "--port", type=int, metavar="PORT", help="the port that the proxy listens on")
    found.add_argument(
        "--wait-s", type=_seconds, default=90.0, metavar="S", help="longest wait for the result (default 90)"
    )
    return found


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _WAIT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds from 0 to {_WAIT_MAX_S:g}")
    return seconds
