"""supervisor: what the workers of the next generation need is open, or nothing is."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shmchannel.daemonkit.daemon import Settings
from shmchannel.daemonkit.readiness import NotifySocket
from tests.support.descriptors import open_descriptors
from webproxy.daemon import supervisor
from webproxy.daemon.admin_process import AdminProcess
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.handover import Inherited, SuccessorRole
from webproxy.daemon.supervisor import Settled, Supervisor, settle
from webproxy.errors import StartupError
from webproxy.transport.listener import open_listener

CONFIG = ProxyConfig(port=0, workers=2)


@pytest.fixture
def serving() -> Iterator[Settled]:
    with open_listener("127.0.0.1", 0) as listener:
        settled = Settled(CONFIG, listener, None)
        yield settled
        settled.close()


@pytest.fixture
def no_settings_file(serving: Settled, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_config: ProxyConfig) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(supervisor, "settings_file", refuse)


def test_what_the_serving_generation_has_is_shared_if_its_address_is_the_same(serving: Settled) -> None:
    settled = settle(replace(CONFIG, drain_s=1.0), serving)
    assert (settled.listener, settled.admin) == (serving.listener, None)
    settled.close()


@pytest.mark.usefixtures("no_settings_file")
def test_sockets_that_were_opened_are_closed_if_the_settings_cannot_be_written(
    serving: Settled, tmp_path: Path
) -> None:
    before, path = open_descriptors(), tmp_path / "admin"
    with pytest.raises(OSError, match="Too many open files"):
        settle(replace(CONFIG, host="localhost", admin=str(path)), serving)
    assert (open_descriptors(), path.exists()) == (before, False)
    assert serving.listener.fileno() >= 0


def test_a_port_that_was_opened_is_closed_if_the_admin_address_cannot_be_had(serving: Settled, tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(StartupError, match="its directory is missing"):
        settle(replace(CONFIG, host="localhost", admin=str(tmp_path / "nowhere" / "admin")), serving)
    assert open_descriptors() == before


@pytest.mark.usefixtures("no_settings_file")
def test_a_supervisor_that_cannot_start_leaves_nothing_open(tmp_path: Path) -> None:
    before, path = open_descriptors(), tmp_path / "admin"
    settings = Settings(replace(CONFIG, admin=str(path)), lambda: CONFIG, lambda _: None)
    with pytest.raises(OSError, match="Too many open files"):
        Supervisor(settings, open_listener("127.0.0.1", 0), Inherited())
    assert (open_descriptors(), path.exists()) == (before, False)


@pytest.mark.usefixtures("no_settings_file")
def test_a_successor_that_cannot_start_leaves_its_predecessor_the_path_of_the_admin_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    admin = AdminProcess(str(path))
    listener = open_listener("127.0.0.1", 0)
    role = SuccessorRole(
        listener_fd=listener.fileno(),
        host="127.0.0.1",
        port=0,
        notify_address="",
        admin_address=str(path),
        admin_fd=os.dup(admin.fileno()),
    )
    settings = Settings(replace(CONFIG, admin=str(path)), lambda: CONFIG, lambda _: None)
    with pytest.raises(OSError, match="Too many open files"):
        Supervisor(settings, listener, Inherited(None, role, listener))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    admin.close()
    assert not path.exists()


def test_a_socket_for_notices_that_gets_no_name_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nameless(socket.socket):
        def bind(self, _address: object) -> None:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    before = open_descriptors()
    monkeypatch.setattr(socket, "socket", Nameless)
    with pytest.raises(OSError, match="No buffer space") as caught:
        NotifySocket()
    assert open_descriptors() == before
    del caught
