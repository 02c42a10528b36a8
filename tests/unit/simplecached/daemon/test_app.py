"""CacheService: the budget that a memory store gets where little memory is left."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from shmchannel.errors import LimitReached
from simplecached.daemon.app import CacheService
from simplecached.daemon.config import CacheConfig
from tests.support.channels import unique_queue

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def warnings_of_a_start(config: CacheConfig, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    caplog.set_level(logging.WARNING, "simplecached")
    with ExitStack() as resources:
        CacheService(config, resources)
    return [record for record in caplog.records if record.message.startswith("memory store")]


@pytest.fixture
def queue_name() -> str:
    return unique_queue()


@pytest.fixture
def available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 100 MiB left."""
    facts = tmp_path / "meminfo"
    facts.write_text(f"MemTotal: 1000 kB\nMemAvailable: {100 * 1024} kB\n")
    monkeypatch.setattr("shmchannel.process.memory.MEMINFO", str(facts))


@pytest.mark.usefixtures("available")
def test_the_default_is_half_of_what_is_left(queue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    (warning,) = warnings_of_a_start(CacheConfig(queue_name=queue_name), caplog)
    numbers = {"store_bytes": 50 * MIB, "available_bytes": 100 * MIB, "default_bytes": 1024 * MIB}
    assert numbers.items() <= vars(warning).items()


@pytest.mark.usefixtures("available")
def test_a_size_that_was_chosen_is_refused_with_both_numbers(queue_name: str, caplog: pytest.LogCaptureFixture) -> None:
    config = CacheConfig(queue_name=queue_name, store_bytes=1024 * MIB, hot_table_bytes=0)
    with pytest.raises(LimitReached, match=r"1,073,741,824 bytes wanted, 104,857,600 bytes of memory available"):
        warnings_of_a_start(config, caplog)


@pytest.mark.usefixtures("available")
def test_a_store_on_disk_takes_no_memory(queue_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = CacheConfig(queue_name=queue_name, store=str(tmp_path / "store"))
    assert warnings_of_a_start(config, caplog) == []
