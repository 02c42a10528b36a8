"""The processes of a proxy that runs as several: its supervisors, their workers, and the connections inside each."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from scripts.daemons import Daemon

_LOOK_INTERVAL_S = 0.01
_END_TIMEOUT_S = 40.0


class NotInTime(Exception):
    """The proxy did not do what it should in time; the text says what."""


class Proxy:
    """A supervisor that writes its log as JSON, and those that take its place, which write into the same log."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.supervisors = [daemon.pid]
        """All that there were, the serving one last."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far, of all its processes."""
        found = []
        for line in self._daemon.log_text().splitlines():
            if f'"{name}"' in line:
                with suppress(ValueError):  # it is being written
                    found.append(json.loads(line))
        return [event for event in found if event["event"] == name]

    def wait_for(self, name: str, count: int, timeout_s: float) -> dict[str, Any]:
        """Block until there are so many events of the name, and return the last. Raises NotInTime."""
        give_up = time.monotonic() + timeout_s
        while len(found := self.events(name)) < count:
            if time.monotonic() > give_up:
                raise NotInTime(f"{name!r} came {len(found)} instead of {count} times within {timeout_s:g} s")
            time.sleep(_LOOK_INTERVAL_S)
        return found[count - 1]

    def workers(self, *, ready: bool = False) -> list[int]:
        """The pids of the serving supervisor's workers; `ready`: only of those that it has called so."""
        with suppress(psutil.NoSuchProcess):
            pids = [child.pid for child in psutil.Process(self.supervisors[-1]).children()]
            said = {event["worker"] for event in self.events("worker ready")} if ready else set(pids)
            return [pid for pid in pids if pid in said]
        return []

    def all_pids(self) -> set[int]:
        """Of all processes that there were."""
        return {*self.supervisors, *(event["worker"] for event in self.events("worker ready"))}

    def end(self) -> None:
        """End the supervisors that took the place of the first, which are no children of ours, and their workers."""
        for pid in self.supervisors[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + _END_TIMEOUT_S
        for pid in self.supervisors[1:]:
            while is_running(pid):
                if time.monotonic() > give_up:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(_LOOK_INTERVAL_S)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def pss_bytes(pid: int) -> int:
    """The proportional share of the memory of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A process that was killed: between these times, with the client's port of each connection inside it."""

    began_s: float
    ended_s: float
    inside: frozenset[int]


def kill_and_look(pid: int, port: int) -> Kill:
    """Kill a process, and note which connections to `port` are inside it, for which it is held before."""
    began_s = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
    inside = frozenset(_client_ports(pid, port))
    ended_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return Kill(began_s=began_s, ended_s=ended_s, inside=inside)


def _client_ports(pid: int, port: int) -> Iterator[int]:
    with suppress(psutil.NoSuchProcess):
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.raddr and connection.laddr.port == port:
                yield connection.raddr.port
