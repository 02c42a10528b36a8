"""Does the service manager hear us by either kind of name, and is its absence harmless?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit import readiness
from shmchannel.daemonkit.readiness import READY, STOPPING, WATCHDOG, Notice, NotifySocket, main_pid, notify, send

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(30)
        yield receiver


def test_by_path(manager: socket.socket) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders can be too long for a socket's name
        path = os.path.join(folder, "notify")
        manager.bind(path)
        assert notify(READY, STOPPING, environ={"NOTIFY_SOCKET": path})
        assert manager.recv(4096) == b"READY=1\nSTOPPING=1"


def test_by_abstract_name(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gfcache-readiness-{os.getpid()}"
    manager.bind("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    assert notify(STOPPING)
    assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1", "/nowhere/notify", "/" + "x" * 200, "@" + "x" * 200, "/\ud800", "/a\0b"]
)
def test_unreachable_manager_is_no_error(address: str) -> None:
    assert not notify(READY, environ={"NOTIFY_SOCKET": address})


def test_no_manager() -> None:
    assert not notify(READY, environ={})


def test_manager_that_does_not_read_holds_nobody(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gfcache-readiness-full-{os.getpid()}"
    manager.bind("\0" + name)
    monkeypatch.setattr(readiness, "SEND_TIMEOUT_S", 0.01)
    sent = 0
    while notify(READY, environ={"NOTIFY_SOCKET": f"@{name}"}):
        sent += 1
        assert sent < 100_000
    assert manager.recv(4096) == b"READY=1"


@pytest.fixture
def notices() -> Iterator[NotifySocket]:
    heard = NotifySocket()
    yield heard
    heard.close()


def test_nothing_was_said_yet(notices: NotifySocket) -> None:
    assert notices.take() == []


def test_what_was_said_is_heard_in_order(notices: NotifySocket) -> None:
    assert send(notices.address, READY, WATCHDOG)
    assert send(notices.address, main_pid(7))
    assert notices.take() == [
        Notice(os.getpid(), ("READY=1", "WATCHDOG=1")),
        Notice(os.getpid(), ("MAINPID=7",)),
    ]
    assert notices.take() == []


def test_the_kernel_says_who_spoke(notices: NotifySocket) -> None:
    """A process that calls itself another one is heard under its own pid."""
    script = "import sys; from shmchannel.daemonkit.readiness import send; assert send(sys.argv[1], 'MAINPID=1')"
    with subprocess.Popen([sys.executable, "-c", script, notices.address]) as child:
        assert child.wait() == 0
        assert notices.take() == [Notice(child.pid, ("MAINPID=1",))]


def test_of_another_user_nothing_is_heard(notices: NotifySocket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(notices.address, READY)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert notices.take() == []


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"x" * 10_000])
def test_nonsense_is_no_error(notices: NotifySocket, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, b"\0" + notices.address[1:].encode())
    (notice,) = notices.take()
    assert notice.pid == os.getpid()
    assert READY not in notice.messages


def test_two_addresses_differ_and_end_with_their_sockets(notices: NotifySocket) -> None:
    other = NotifySocket()
    assert other.address != notices.address
    other.close()
    assert not send(other.address, READY)
