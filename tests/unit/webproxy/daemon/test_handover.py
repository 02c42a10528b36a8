"""handover: does a process take what it was given, and nothing that was meant for another?"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from shmchannel.daemonkit import parent
from shmchannel.daemonkit.readiness import READY, STATUS_CHARACTERS_MAX, NotifySocket
from shmchannel.daemonkit.sources import load
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.handover import (
    Inherited,
    SuccessorRole,
    WorkerRole,
    inherit,
    is_worker,
    predecessor_told,
    settings_file,
    successor_environment,
    worker_command,
    worker_environment,
)
from webproxy.errors import StartupError
from webproxy.transport.listener import open_listener

WORKER, SUCCESSOR = "GFCACHE_WORKER", "GFCACHE_SUCCESSOR"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with open_listener("127.0.0.1", 0) as opened:
        yield opened


@pytest.fixture
def not_adopted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | str, ...]]:
    """This process gets no name and no parent of its own; what was wanted."""
    wanted: list[tuple[int | str, ...]] = []

    def end_with(pid: int) -> bool:
        wanted.append(("end with", pid))
        return pid == os.getppid()

    monkeypatch.setattr(parent, "end_with", end_with)
    monkeypatch.setattr(parent, "name_process", lambda name: wanted.append(("name", name)))
    return wanted


def test_without_variables_nothing_is_inherited() -> None:
    assert not is_worker()
    assert inherit() == Inherited(None, None, None)


def test_a_worker_takes_its_role_and_its_socket_and_leaves_no_variable(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, not_adopted: list[tuple[int | str, ...]]
) -> None:
    settings_fd = settings_file(ProxyConfig())
    role = WorkerRole(
        slot=3, listener_fd=os.dup(listener.fileno()), settings_fd=settings_fd, supervisor=os.getppid(), page="/p"
    )
    monkeypatch.setattr(os, "environ", worker_environment(role, "@notices"))
    assert is_worker()
    inherited = inherit()
    assert (inherited.worker, inherited.successor, inherited.page) == (role, None, "/p")
    assert inherited.listener is not None
    with inherited.listener as adopted:
        assert adopted.getsockname() == listener.getsockname()
        assert not adopted.get_inheritable()
        assert inherited.listener_for("ignored", 1) is adopted
    assert not_adopted == [("name", "webproxy:3"), ("end with", os.getppid())]
    assert not is_worker()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(settings_fd)


def test_a_worker_of_a_supervisor_that_has_ended_does_not_start(
    monkeypatch: pytest.MonkeyPatch, not_adopted: list[tuple[int | str, ...]]
) -> None:
    role = WorkerRole(slot=0, listener_fd=-1, settings_fd=-1, supervisor=os.getppid() + 1)
    monkeypatch.setattr(os, "environ", worker_environment(role, "@notices"))
    with pytest.raises(StartupError, match="the supervisor of this worker has ended"):
        inherit()
    assert ("end with", os.getppid() + 1) in not_adopted


def test_a_successor_takes_its_role_and_tells_its_predecessor(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, not_adopted: list[tuple[int | str, ...]]
) -> None:
    notices = NotifySocket()
    fd, port = os.dup(listener.fileno()), listener.getsockname()[1]
    role = SuccessorRole(listener_fd=fd, host="127.0.0.1", port=port, notify_address=notices.address)
    monkeypatch.setattr(os, "environ", successor_environment(role))
    inherited = inherit()
    assert (inherited.worker, inherited.successor) == (None, role)
    assert not_adopted == [("name", "webproxy")]
    assert SUCCESSOR not in os.environ
    inherited.say_ready()
    assert notices.take() == [(os.getpid(), (READY,))]
    notices.close()
    with inherited.listener_for("127.0.0.1", port) as adopted:
        assert adopted.getsockname() == listener.getsockname()


def test_a_successor_tells_its_predecessor_why_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    notices = NotifySocket()
    role = SuccessorRole(listener_fd=listener.fileno(), host="h", port=1, notify_address=notices.address)
    monkeypatch.setattr(os, "environ", successor_environment(role))
    tell = predecessor_told()
    monkeypatch.delenv(SUCCESSOR)  # as inherit() does
    tell("port: 0 is\nnot allowed" + 1000 * "!")
    (notice,) = notices.take()
    notices.close()
    assert notice.status.startswith("port: 0 is not allowed!!!")
    assert len(notice.status) == STATUS_CHARACTERS_MAX


@pytest.mark.parametrize("value", ["", "null", "[]", "{", "{}", '{"notify_address": 5}'])
def test_without_a_predecessor_nobody_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(SUCCESSOR, value)
    assert predecessor_told()("anything") is False


def test_a_successor_with_another_address_opens_its_own(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    given = socket.socket(fileno=os.dup(listener.fileno()))
    role = SuccessorRole(listener_fd=given.fileno(), host="127.0.0.1", port=port, notify_address="")
    with Inherited(None, role, given).listener_for("127.0.0.1", 0) as own:
        assert own.getsockname() != listener.getsockname()
    assert given.fileno() < 0, "the other one is closed"


def test_without_an_inherited_socket_one_is_opened() -> None:
    with Inherited().listener_for("127.0.0.1", 0) as own:
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.parametrize("variable", [WORKER, SUCCESSOR])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "null",
        "[]",
        "{}",
        "{",
        '{"slot": 1}',
        '{"slot": "1", "listener_fd": 3, "settings_fd": 4, "supervisor": 5}',
        '{"listener_fd": 3.5, "host": "", "port": 1, "notify_address": ""}',
        '{"listener_fd": 3, "host": "", "port": null, "notify_address": ""}',
    ],
)
def test_a_variable_of_another_s_making_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StartupError, match=f"^{variable} is set by the proxy for its own processes: unset it$"):
        inherit()
    assert variable not in os.environ


def test_settings_come_out_of_the_file_as_they_went_in() -> None:
    config = ProxyConfig(workers=0, drain_s=3.25, purge_from=("127.0.0.0/8", "::1"), origin_url="http://h.example/a")
    fd = settings_file(config)
    try:
        command = worker_command(fd)
        flags = command[command.index("webproxy") + 1 :]
        for _ in range(2):  # a worker that replaces another reads it once more
            loaded = load(ProxyConfig, prog="webproxy", description="", version=lambda: "", argv=flags)
            assert loaded.config == config
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_worker_s_settings_come_from_its_supervisor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBPROXY_DRAIN_S", "5")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    role = WorkerRole(slot=0, listener_fd=3, settings_fd=4, supervisor=5)
    environment = worker_environment(role, "@notices")
    assert "WEBPROXY_DRAIN_S" not in environment
    assert environment["NOTIFY_SOCKET"] == "@notices"
    assert json.loads(environment[WORKER]) == {
        "slot": 0,
        "listener_fd": 3,
        "settings_fd": 4,
        "supervisor": 5,
        "page": "",
    }
    assert environment["PATH"] == os.environ["PATH"]
