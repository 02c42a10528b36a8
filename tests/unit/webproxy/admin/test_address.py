"""Where the admin server listens: which texts are addresses, and what becomes of a path that is there already."""

from __future__ import annotations

import socket
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from webproxy.admin.address import is_address, is_own, open_admin_listener, own_names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["127.0.0.1:25363", "[::1]:1", "localhost:0", "/run/x.sock", "./x"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["", "25363", ":25363", "host:", "host:x", "127.0.0.1:65536", "x.sock"])
def test_what_is_none(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0"])
def test_tcp(text: str) -> None:
    with open_admin_listener(text) as listener:
        assert listener.getsockname()[1] > 0


def test_a_unix_socket_is_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with open_admin_listener(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")
    open_admin_listener(path).close()
    with open_admin_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_hundreds_find_a_place_before_the_first_is_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    with ExitStack() as opened:
        opened.enter_context(open_admin_listener(path))
        for _ in range(500):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(path)


def test_one_that_is_served_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")
    with open_admin_listener(path), pytest.raises(OSError, match="in use"):
        open_admin_listener(path)


def test_nor_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(OSError, match="in use"):
        open_admin_listener(str(path))
    assert path.read_text() == "kept"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:25363",
        "[::1]:1",
        "[::1]",
        "localhost",
        "LocalHost:1",
        "localhost.",
        "me.example:9",
    ],
)
def test_what_a_server_is_called(host: str) -> None:
    assert is_own(host, own_names("me.example:25363") or frozenset())


def test_it_may_be_called_by_the_name_of_its_machine() -> None:
    assert is_own(socket.gethostname(), own_names("127.0.0.1:25363") or frozenset())


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:25363", "127.0.0.1.evil.example", "localhost.evil.example", "1.2.3", "a b"],
)
def test_what_it_is_not_called(host: str) -> None:
    assert not is_own(host, own_names("127.0.0.1:25363") or frozenset())


def test_a_unix_socket_may_be_called_anything() -> None:
    assert own_names("/run/admin.sock") is None
