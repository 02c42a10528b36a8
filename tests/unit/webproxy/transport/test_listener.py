"""listener: is what accepted connections inherit there, and does a refused address say what to do?"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.tcp import connected
from webproxy.errors import StartupError
from webproxy.transport.listener import activated_listener, adopt_listener, open_listener
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


@contextmanager
def given(make: Callable[[ExitStack], int]) -> Iterator[int]:
    """A descriptor that the receiver refuses, and so leaves open."""
    with ExitStack() as stack:
        fd = make(stack)
        yield fd
        os.close(fd)


def test_a_socket_that_was_handed_over_has_our_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        fd = os.dup(foreign.fileno())
        os.set_inheritable(fd, True)
        with adopt_listener(fd) as listener:
            assert listener.fileno() == fd
            assert not listener.get_inheritable()
            assert not listener.getblocking()
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)


def _udp(stack: ExitStack) -> int:
    receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", 0))
    return os.dup(receiver.fileno())


def _unix(stack: ExitStack) -> int:
    server = stack.enter_context(socket.socket(socket.AF_UNIX))
    server.bind("")
    server.listen()
    return os.dup(server.fileno())


def _not_listening(stack: ExitStack) -> int:
    return os.dup(stack.enter_context(socket.socket()).fileno())


def _connected(stack: ExitStack) -> int:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return os.dup(stack.enter_context(socket.create_connection(server.getsockname())).fileno())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: os.memfd_create("none"), "is not a socket"),
        (_udp, "is not a listening TCP socket"),
        (_unix, "is not a listening TCP socket"),
        (_not_listening, "is not a listening TCP socket"),
        (_connected, "is not a listening TCP socket"),
    ],
    ids=["file", "UDP", "Unix", "not listening", "connected"],
)
def test_what_is_no_listening_socket_is_refused(make: Callable[[ExitStack], int], reason: str) -> None:
    with given(make) as fd, pytest.raises(StartupError, match=rf"^descriptor {fd}, which was handed over, {reason}$"):
        adopt_listener(fd)


def test_a_descriptor_that_is_not_there_is_refused() -> None:
    with pytest.raises(StartupError, match="descriptor 987654, which was handed over, is of no use: Bad file desc"):
        adopt_listener(987_654)


OURS = str(os.getpid())


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": OURS},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "0"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "-1"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "x"},
    ],
)
def test_sockets_for_nobody_or_for_another_process_are_left_alone(variables: dict[str, str]) -> None:
    environ = {**variables, "LISTEN_FDNAMES": "http", "OTHER": "1"}
    assert activated_listener(environ) is None
    assert environ == {"OTHER": "1"}


def test_several_sockets_are_refused() -> None:
    with pytest.raises(StartupError, match=r"hands over 2 sockets; one ListenStream= is supported"):
        activated_listener({"LISTEN_PID": OURS, "LISTEN_FDS": "2"})
