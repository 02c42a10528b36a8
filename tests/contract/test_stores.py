"""Both stores keep the store contract."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.store_contract import StoreContract
from tests.support.stores import InterruptedDirectoryStore, InterruptedMemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.stores import StoreFactory


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make_store(self, _no_descriptor_stays: None) -> Iterator[StoreFactory]:
        with ExitStack() as stores:

            def make(budget_bytes: int = 10_000, entries_max: int = 100, **more: Any) -> InterruptedMemoryStore:
                store = InterruptedMemoryStore(budget_bytes, entries_max, **more)
                stores.callback(store.close)
                return store

            yield make


class TestDirectoryStore(StoreContract):
    open_files_max = 256
    inside_max = 1000

    @pytest.fixture
    def make_store(self, _no_descriptor_stays: None, tmp_path: Path) -> Iterator[StoreFactory]:
        with ExitStack() as stores:

            def make(budget_bytes: int = 10_000, entries_max: int = 100, **more: Any) -> InterruptedDirectoryStore:
                path = str(tmp_path / "store")
                store = InterruptedDirectoryStore(
                    path,
                    budget_bytes,
                    entries_max=entries_max,
                    open_files_max=self.open_files_max,
                    inside_max=self.inside_max,
                    **more,
                )
                stores.callback(store.close)
                return store

            yield make


class TestDirectoryStoreWithOneOpenFile(TestDirectoryStore):
    open_files_max = 1


class TestDirectoryStoreWithOneObjectInMemory(TestDirectoryStore):
    """All others are read from the index when they are wanted."""

    inside_max = 1
