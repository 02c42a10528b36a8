"""The servers for real clients: a pair before a real nginx, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.curl import Curl
from tests.clients.site import Site
from tests.support.daemons import DaemonYard
from tests.support.nginx import Nginx
from tests.support.programs import require_program


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Files below nginx, and a cache and a proxy before it. Each test adds files with names of its own."""
    program = require_program("nginx")
    directory = tmp_path_factory.mktemp("site")
    files = directory / "files"
    files.mkdir()
    with Nginx(program, files, directory / "nginx") as nginx, DaemonYard(directory) as yard:
        yard.start_cache("-t", "4")
        proxy = yard.start_proxy("-s", nginx.url, "-t", "4", env={"WEBPROXY_FORWARD_HOSTS": nginx.authority})
        yield Site(files, nginx, proxy)


@pytest.fixture
def curl(tmp_path: Path) -> Curl:
    """curl as it comes, without the user's settings."""
    return Curl(require_program("curl"), tmp_path)
