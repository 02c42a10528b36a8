"""The process of the admin server: what an operator is told of an address that cannot be had."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from webproxy.admin.address import open_admin_listener
from webproxy.daemon.admin_process import AdminProcess
from webproxy.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    address = str(tmp_path / "nowhere" / "admin")
    said = f"cannot listen on {address} (admin): No such file or directory (its directory is missing: create it"
    with pytest.raises(StartupError, match=re.escape(said)):
        AdminProcess(address)


def test_a_port_that_is_taken() -> None:
    with open_admin_listener("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = f"cannot listen on {address} (admin): Address already in use (another process listens there"
        with pytest.raises(StartupError, match=re.escape(said)):
            AdminProcess(address)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"AF_UNIX path too long \(a socket's path has at most 107 bytes"):
        AdminProcess(str(tmp_path / ("x" * 200)))


def test_a_name_that_is_none() -> None:
    said = r"no-such-host.invalid:0 \(admin\): [^()]*(not known|resolution|No address)[^()]* \(check --admin\)"
    with pytest.raises(StartupError, match=said):
        AdminProcess("no-such-host.invalid:0")


@pytest.mark.parametrize("address", ["\N{LATIN SMALL LETTER A WITH DIAERESIS}..b:0", "\ud800:0"])
def test_a_name_that_no_resolver_is_asked_for(address: str) -> None:
    with pytest.raises(StartupError, match=r"a part of the name is empty, too long or not allowed \(check --admin\)"):
        AdminProcess(address)
