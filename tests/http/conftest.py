"""The daemons of a module of tests, and the origin of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.site import Daemons, Site, daemons, origin_of


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """A cache and a proxy for the module, with the environment PROXY_ENV of the module."""
    env = {"WEBPROXY_ORIGIN_TRIES": "1", **getattr(request.module, "PROXY_ENV", {})}
    with daemons(tmp_path_factory.mktemp("daemons"), env=env) as living:
        yield living


@pytest.fixture
def site(shared: Daemons) -> Iterator[Site]:
    """An origin without routes, and the module's proxy before it."""
    with origin_of(shared) as living:
        yield living
