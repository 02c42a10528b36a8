"""Here the way of commands is what fails and recovers, so that no request goes past it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import CONTENT, write_content
from tests.support.daemons import NO_HOT_TABLE, DaemonYard
from workloads.origin_stub import OriginStub, Route


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    """As everywhere, but caches have no hot table unless the test gives them one."""
    with DaemonYard(tmp_path, cache_env=NO_HOT_TABLE) as living:
        yield living


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A directory with CONTENT, for a cache."""
    return write_content(tmp_path / "content")


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    """An origin of CONTENT."""
    with OriginStub({path: Route(body=body) for path, body in CONTENT.items()}) as stub:
        yield stub
