"""Here the way of commands is what fails and recovers, so that no request goes past it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import NO_HOT_TABLE, DaemonYard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[DaemonYard]:
    """As everywhere, but caches have no hot table unless the test gives them one."""
    with DaemonYard(tmp_path, cache_env=NO_HOT_TABLE) as living:
        yield living
