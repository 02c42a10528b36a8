"""What one process of the proxy gives another that it starts: sockets, settings, and whom to tell that it is ready.

Descriptors are inherited, and a variable of the environment says which they are and what for. A *worker* belongs to a
supervisor; a *successor* is a process like this one that shall take its place. Neither is told by flags: these are the
user's, and a successor has the same ones. The variables are removed as soon as they are read, so that no further
process takes them for its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from shmchannel.daemonkit import parent
from shmchannel.daemonkit.readiness import READY, send, status
from shmchannel.daemonkit.toml_text import render
from shmchannel.process import reaper
from webproxy.daemon.config import ProxyConfig
from webproxy.errors import StartupError
from webproxy.transport.listener import activated_listener, adopt_listener, open_listener

_WORKER_VARIABLE = "GFCACHE_WORKER"
_SUCCESSOR_VARIABLE = "GFCACHE_SUCCESSOR"
_OWN_PREFIX = "WEBPROXY_"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRole:
    """What a worker is told: its slot, and descriptors of the socket and of its settings; `supervisor` is a pid.

    `page` is the name of the stats page of its slot; empty if there is none.
    """

    slot: int
    listener_fd: int
    settings_fd: int
    supervisor: int
    page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessorRole:
    """What a successor is told: the inherited sockets, their addresses in the settings, and whom to tell."""

    listener_fd: int
    host: str
    port: int
    notify_address: str
    admin_address: str = ""
    admin_fd: int = -1
    """-1: there is no admin server."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What this process was given: a role, or two Nones; and a listening socket, its own from now on."""

    worker: WorkerRole | None = None
    successor: SuccessorRole | None = None
    listener: socket.socket | None = None

    def listener_for(self, host: str, port: int) -> socket.socket:
        """The inherited socket, or a new one: without any, and if the settings want another than the predecessor's.

        Raises:
            StartupError: the address cannot be listened on.
        """
        successor = self.successor
        if self.listener is None:
            return open_listener(host, port)
        if successor is None or (successor.host, successor.port) == (host, port):
            return self.listener
        self.listener.close()
        return open_listener(host, port)

    @property
    def page(self) -> str:
        """The name of the stats page that its supervisor keeps for it; empty without one."""
        return self.worker.page if self.worker is not None else ""

    def admin_listener(self, address: str) -> socket.socket | None:
        """The socket of the predecessor's admin server, if it listens at this address; otherwise it is closed."""
        role = self.successor
        if role is None or role.admin_fd < 0:
            return None
        listener = socket.socket(fileno=role.admin_fd)
        listener.set_inheritable(False)
        if role.admin_address == address:
            return listener
        listener.close()
        return None

    def say_ready(self) -> None:
        """Tell the predecessor that this process serves, if it has one. A supervisor is told by notify()."""
        if self.successor is not None:
            send(self.successor.notify_address, READY)


def predecessor_told() -> Callable[[str], object]:
    """What tells the predecessor of this process why it does not start; without one nobody is told.

    To be called before the environment is changed: the settings are read before inherit() is called, and by then no
    variable says any more whose successor this is.
    """
    try:
        role = json.loads(os.environ.get(_SUCCESSOR_VARIABLE, ""))
    except ValueError:
        role = None
    address = role.get("notify_address") if isinstance(role, dict) else None
    return lambda reason: isinstance(address, str) and send(address, status(reason))


def is_worker() -> bool:
    """Return whether this process is a supervisor's."""
    return _WORKER_VARIABLE in os.environ


def inherit() -> Inherited:
    """Take over what this process was given; a worker also gets a name, and ends with its supervisor from now on.

    The variables that say so are removed: no process that this one starts is meant.

    Raises:
        StartupError: what was given is of no use, or the supervisor has ended.
    """
    match _taken(_WORKER_VARIABLE):
        case None:
            pass
        case {
            "slot": int(slot),
            "listener_fd": int(listener_fd),
            "settings_fd": int(settings_fd),
            "supervisor": int(supervisor),
            "page": str(page),
        }:
            parent.name_process(f"webproxy:{slot}")
            if not parent.end_with(supervisor):
                reaper.sweep()  # nobody else may be there to remove its names
                raise StartupError("the supervisor of this worker has ended")
            with contextlib.suppress(OSError):
                os.close(settings_fd)  # it has been read
            role = WorkerRole(
                slot=slot, listener_fd=listener_fd, settings_fd=settings_fd, supervisor=supervisor, page=page
            )
            return Inherited(role, None, adopt_listener(listener_fd))
        case _:
            raise StartupError(f"{_WORKER_VARIABLE} is set by the proxy for its own processes: unset it")
    match _taken(_SUCCESSOR_VARIABLE):
        case None:
            return Inherited(listener=activated_listener(os.environ))
        case {
            "listener_fd": int(listener_fd),
            "host": str(host),
            "port": int(port),
            "notify_address": str(notify_address),
            "admin_address": str(admin_address),
            "admin_fd": int(admin_fd),
        }:
            parent.name_process("webproxy")  # started by the interpreter's path, it would be called like that
            successor = SuccessorRole(
                listener_fd=listener_fd,
                host=host,
                port=port,
                notify_address=notify_address,
                admin_address=admin_address,
                admin_fd=admin_fd,
            )
            return Inherited(None, successor, adopt_listener(listener_fd))
    raise StartupError(f"{_SUCCESSOR_VARIABLE} is set by the proxy for its own processes: unset it")


def _taken(variable: str) -> object:
    text = os.environ.pop(variable, None)
    try:
        value = None if text is None else json.loads(text)
    except ValueError:
        return text
    return text if value is None else value


def worker_environment(role: WorkerRole, notify_address: str) -> dict[str, str]:
    """The environment of a worker: its settings come from the supervisor and from nowhere else."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIX)}
    return {**inherited, "NOTIFY_SOCKET": notify_address, _WORKER_VARIABLE: json.dumps(asdict(role))}


def successor_environment(role: SuccessorRole) -> dict[str, str]:
    """The environment of a successor: that of this process."""
    return {**os.environ, _SUCCESSOR_VARIABLE: json.dumps(asdict(role))}


def settings_file(config: ProxyConfig) -> int:
    """The settings as a file in memory, for `--config /dev/fd/N`; returns its descriptor, which the caller closes.

    Raises:
        OSError: no memory or descriptor for it.
    """
    fd = os.memfd_create("gfcache-settings", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(render(config).encode())
    except BaseException:
        os.close(fd)
        raise
    return fd


def worker_command(settings_fd: int) -> list[str]:
    """The command line of a worker."""
    return module_command("webproxy", "--config", f"/dev/fd/{settings_fd}")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of another process that runs a module, found where this process finds modules."""
    safe_path = [] if sys.path[:1] in ([""], [os.getcwd()]) else ["-P"]
    return [sys.executable, *safe_path, "-m", module, *arguments]


def successor_command() -> list[str]:
    """The command line of this process: where it leads to other program files by now, these are run."""
    return [*sys.orig_argv]
