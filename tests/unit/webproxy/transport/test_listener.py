"""listener: is what accepted connections inherit there, and does a refused address say what to do?"""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from tests.support.tcp import connected
from webproxy.errors import StartupError
from webproxy.transport.listener import open_listener
from webproxy.transport.sockets import STAY_MS


def test_accepted_connections_are_patient_prompt_and_closed_at_exec() -> None:
    with connected() as (fd, _client), socket.socket(fileno=fd) as server:
        assert not server.get_inheritable()
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        wait = struct.unpack("@ll", server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
        assert wait == (0, 1000 * STAY_MS)
        assert os.get_blocking(fd)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_both_families_are_listened_on(host: str, family: socket.AddressFamily) -> None:
    with open_listener(host, 0) as listener:
        assert listener.family == family
        with socket.create_connection(listener.getsockname()[:2]) as client:
            client.sendall(b"x")
            listener.settimeout(10)
            listener.accept()[0].close()


def test_a_port_in_use_says_what_to_do() -> None:
    with open_listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"port {port}: Address already in use .*choose another -p"):
            open_listener("127.0.0.1", port)


def test_a_port_that_needs_a_privilege_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged(socket.socket):
        """A socket of a user that may not listen on a low port; root may."""

        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Unprivileged)
    with pytest.raises(StartupError, match=r"port 80: Permission denied .*CAP_NET_BIND_SERVICE") as refused:
        open_listener("127.0.0.1", 80)
    assert "net.ipv4.ip_unprivileged_port_start" in str(refused.value)


@pytest.mark.parametrize("host", ["256.1.1.1", "no-such-host.invalid", "192.0.2.1", "a..b"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(StartupError, match=host):
        open_listener(host, 0)
