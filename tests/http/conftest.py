"""The daemons of a module of tests, and the origin of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.site import Daemons, Site, daemons, origin_of

# The tests share an origin, by its address, and what one of them makes fail is not to be remembered in the next.
EACH_REQUEST_ITS_OWN = {
    "WEBPROXY_ORIGIN_TRIES": "1",
    "WEBPROXY_ORIGIN_FAILURES_TO_OPEN": "0",
    "WEBPROXY_FAILURES_SHARED_S": "0",
}


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """A cache and a proxy for the module, with the environment PROXY_ENV of the module."""
    env = {**EACH_REQUEST_ITS_OWN, **getattr(request.module, "PROXY_ENV", {})}
    with daemons(tmp_path_factory.mktemp("daemons"), env=env) as living:
        yield living


@pytest.fixture
def site(shared: Daemons) -> Iterator[Site]:
    """An origin without routes, and the module's proxy before it."""
    with origin_of(shared) as living:
        yield living
