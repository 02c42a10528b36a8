"""Where the admin server listens: which texts are addresses, and what becomes of a path that is there already."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from webproxy.admin.address import is_address, open_admin_listener

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
