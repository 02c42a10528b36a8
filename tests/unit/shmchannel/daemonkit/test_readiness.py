"""Does the service manager hear us by either kind of name, and is its absence harmless?"""

from __future__ import annotations

import os
import socket
import tempfile
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit import readiness
from shmchannel.daemonkit.readiness import READY, STOPPING, notify

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
