"""Both stores against a naive model: any history of writes, readers, removals and (for the directory) restarts."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simplecached.errors import NotStored
from simplecached.stores import steps
from simplecached.stores.directory_store import DirectoryStore
from simplecached.stores.memory_store import MemoryStore
from tests.support.examples import examples
from tests.support.stores import body_of, started_after_a_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from simplecached.stores.lru_store import LruStore
    from simplecached.stores.store import BodyWriter, StoredObject

BUDGET_BYTES = 40
ENTRIES_MAX = 5
KEYS = st.sampled_from([b"/a", b"/ab", b"/b", b"/c/1", b"/c/2", b"/c/3"])
PREFIXES = st.sampled_from([b"", b"/a", b"/c/", b"/none"])


@dataclass(eq=False)
class ModelObject:
    key: bytes
    body: bytes
    metadata: bytes
    pins: int = 0
    version: int = 0
    removed: bool = False
    invalidated: bool = False

    @property
    def cost_bytes(self) -> int:
        return len(self.body) + len(self.metadata)


@dataclass
class Model:
    """All objects that take room, the least recently used first; a writer is a pin."""

    objects: list[ModelObject] = field(default_factory=list)
    visible: dict[bytes, ModelObject] = field(default_factory=dict)

    def touch(self, item: ModelObject) -> None:
        self.objects.remove(item)
        self.objects.append(item)

    def hide(self, item: ModelObject) -> None:
        del self.visible[item.key]
        if not item.pins:
            self.objects.remove(item)

    def unpin(self, item: ModelObject) -> None:
        item.pins -= 1
        if not item.pins and self.visible.get(item.key) is not item:
            self.objects.remove(item)

    def make_room(self, cost_bytes: int, entry_count: int = 1) -> bool:
        """Evict as the store must; False, and nothing evicted, when it must refuse."""
        left, victims = list(self.objects), []
        while (
            sum(item.cost_bytes for item in left) + cost_bytes > BUDGET_BYTES or len(left) + entry_count > ENTRIES_MAX
        ):
            idle = next((item for item in left if not item.pins), None)
            if idle is None:
                return False
            left.remove(idle)
            victims.append(idle)
        for victim in victims:
            self.hide(victim)
        return True


class StoreMachine(RuleBasedStateMachine):
    """Drives one store; a subclass opens it."""

    def open_store(self) -> LruStore:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.writers: list[tuple[BodyWriter, ModelObject]] = []
        self.readers: list[tuple[StoredObject, ModelObject, bytes, bool]] = []
        self.last_version = 0
        self.store = self.open_store()

    @rule(key=KEYS, body=st.binary(max_size=BUDGET_BYTES + 2), metadata=st.binary(max_size=3))
    def begin_write(self, key: bytes, body: bytes, metadata: bytes) -> None:
        item = ModelObject(key, body, metadata, pins=1)
        try:
            writer = self.store.begin(key, len(body), metadata)
        except NotStored as refusal:
            if "does not fit" in str(refusal):
                assert item.cost_bytes > BUDGET_BYTES
            else:
                assert not self.model.make_room(item.cost_bytes)
        else:
            assert item.cost_bytes <= BUDGET_BYTES
            assert self.model.make_room(item.cost_bytes)
            self.model.objects.append(item)
            self.writers.append((writer, item))

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), end=st.sampled_from(["commit", "commit", "commit", "abort", "short"]))
    def end_write(self, data: st.DataObject, end: str) -> None:
        writer, item = self.writers.pop(data.draw(st.integers(0, len(self.writers) - 1)))
        cut = data.draw(st.integers(0, len(item.body)))
        writer.write(memoryview(item.body)[:cut])
        if end == "commit":
            writer.write(memoryview(item.body)[cut:])
            self.commit(writer, item)
        elif end == "short" and cut < len(item.body):
            try:
                writer.commit()
            except NotStored:
                writer.abort()
        else:
            writer.abort()
        self.model.unpin(item)

    def commit(self, writer: BodyWriter, item: ModelObject) -> None:
        item.version = writer.commit()
        assert item.version > self.last_version
        self.last_version = item.version
        if not item.removed:
            if older := self.model.visible.get(item.key):
                self.model.hide(older)
            self.model.visible[item.key] = item
            self.model.touch(item)

    @rule(key=KEYS)
    def open_reader(self, key: bytes) -> None:
        stored, item = self.store.open(key), self.model.visible.get(key)
        assert (stored is None) == (item is None)
        if stored is not None and item is not None:
            item.pins += 1
            self.model.touch(item)
            self.readers.append((stored, item, item.metadata, item.invalidated))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def end_reader(self, data: st.DataObject) -> None:
        stored, item, _, _ = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        stored.release()
        self.model.unpin(item)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        item = self.model.visible.get(key)
        assert self.store.remove(key) == (item is not None)
        self.after_removal(lambda candidate: candidate == key)

    @rule(prefix=PREFIXES)
    def remove_prefix(self, prefix: bytes) -> None:
        count = sum(key.startswith(prefix) for key in self.model.visible)
        assert self.store.remove_prefix(prefix) == count
        self.after_removal(lambda candidate: candidate.startswith(prefix))

    @rule(key=KEYS, metadata=st.binary(max_size=12), known=st.booleans())
    def replace_metadata(self, key: bytes, metadata: bytes, known: bool) -> None:
        item = self.model.visible.get(key)
        version = item.version if item is not None and known else 0
        try:
            replaced = self.store.replace_metadata(key, version, metadata)
        except NotStored as refusal:
            assert item is not None
            if "does not fit" in str(refusal):
                assert len(item.body) + len(metadata) > BUDGET_BYTES
                self.model.touch(item)
                return
            assert not self.make_room_beside(item, len(metadata) - len(item.metadata))
        else:
            assert replaced == (item is not None)
            if item is not None:
                assert self.make_room_beside(item, len(metadata) - len(item.metadata))
                item.metadata, item.invalidated = metadata, False

    def make_room_beside(self, item: ModelObject, growth_bytes: int) -> bool:
        """Whether it can grow; others leave for it, and it was used."""
        self.model.touch(item)
        item.pins += 1
        try:
            return growth_bytes <= 0 or self.model.make_room(growth_bytes, 0)
        finally:
            item.pins -= 1

    @rule(key=KEYS)
    def another_version_keeps_its_metadata(self, key: bytes) -> None:
        assert not self.store.replace_metadata(key, 2**64 - 1, b"other")

    @rule(key=KEYS)
    def invalidate(self, key: bytes) -> None:
        assert self.store.invalidate(key) == (key in self.model.visible)
        self.after_invalidation(lambda candidate: candidate == key)

    @rule(prefix=PREFIXES)
    def invalidate_prefix(self, prefix: bytes) -> None:
        count = sum(key.startswith(prefix) for key in self.model.visible)
        assert self.store.invalidate_prefix(prefix) == count
        self.after_invalidation(lambda candidate: candidate.startswith(prefix))

    def after_invalidation(self, matches: Callable[[bytes], bool]) -> None:
        """Objects without metadata are removed instead."""
        self.after_removal(matches, lambda item: not item.metadata)
        for item in (*self.model.visible.values(), *(item for _, item in self.writers)):
            item.invalidated = item.invalidated or matches(item.key)

    def after_removal(
        self, matches: Callable[[bytes], bool], leaves: Callable[[ModelObject], bool] = lambda _item: True
    ) -> None:
        for item in [item for key, item in self.model.visible.items() if matches(key) and leaves(item)]:
            self.model.hide(item)
        for _, item in self.writers:
            item.removed = item.removed or (matches(item.key) and leaves(item))

    @invariant()
    def agrees_with_model(self) -> None:
        expected = [item for item in self.model.objects if self.model.visible.get(item.key) is item]
        entries = self.store.records()
        assert [
            (entry.key, entry.version, entry.metadata, entry.size_bytes, entry.invalidated) for entry in entries
        ] == [(item.key, item.version, item.metadata, len(item.body), item.invalidated) for item in expected]
        stats = self.store.stats()
        assert stats.used_bytes == sum(item.cost_bytes for item in self.model.objects) <= BUDGET_BYTES
        assert stats.objects_count == len(expected)
        assert stats.writing_count == len(self.writers)
        assert stats.pinned_count == len({id(item) for _, item, _, _ in self.readers})

    @invariant()
    def readers_see_their_bytes(self) -> None:
        """And the metadata and the validity of their open."""
        for stored, item, metadata, invalidated in self.readers:
            assert body_of(stored) == item.body
            assert (stored.version, stored.metadata, stored.invalidated) == (item.version, metadata, invalidated)

    def end_everything(self) -> None:
        for writer, item in self.writers:
            writer.abort()
            self.model.unpin(item)
        for stored, item, _, _ in self.readers:
            stored.release()
            self.model.unpin(item)
        self.writers.clear()
        self.readers.clear()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.end_everything()
            self.store.close()


class MemoryStoreMachine(StoreMachine):
    def open_store(self) -> LruStore:
        return MemoryStore(BUDGET_BYTES, ENTRIES_MAX)


class DirectoryStoreMachine(StoreMachine):
    inside_max = ENTRIES_MAX

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp(prefix="store-machine-")

    def open_store(self) -> LruStore:
        return DirectoryStore(
            self.path,
            BUDGET_BYTES,
            entries_max=ENTRIES_MAX,
            open_files_max=2,
            inside_max=self.inside_max,
            sync_data=False,
        )

    @rule()
    def settle(self) -> None:
        """What is to be done behind is done now."""
        assert isinstance(self.store, DirectoryStore)
        self.store.settle()

    @rule()
    def restart(self) -> None:
        self.end_everything()
        self.store.close()
        self.store = self.open_store()

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), point=st.sampled_from(["written", "renamed"]), invalidates=st.booleans())
    def purge_during_a_commit(self, data: st.DataObject, point: str, invalidates: bool) -> None:
        """A purge survives a kill of the process right then, or at the next step."""
        writer, item = self.writers[data.draw(st.integers(0, len(self.writers) - 1))]
        key = data.draw(st.one_of(st.just(item.key), KEYS))
        prefix = data.draw(st.one_of(st.none(), st.just(item.key[:2]), PREFIXES))
        done: list[str] = []

        def checkpoint(name: str) -> None:
            if name == point and not done:
                done.append("purging")
                if prefix is None:
                    (self.invalidate if invalidates else self.remove)(key=key)
                else:
                    (self.invalidate_prefix if invalidates else self.remove_prefix)(prefix=prefix)
                done.append("acknowledged")
            if "acknowledged" in done and name in ("written", "renamed"):
                self.a_kill_now_undoes_nothing(item)

        writer.write(memoryview(item.body))
        self.settle()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "checkpoint", checkpoint)
            self.commit(writer, item)
        self.writers.remove((writer, item))
        self.model.unpin(item)

    def a_kill_now_undoes_nothing(self, committing: ModelObject) -> None:
        """The one being committed may be there or not, unless it was removed; it has the highest version."""
        self.settle()
        with started_after_a_kill(self.path) as store:
            entries = store.records()
        for entry in entries:
            is_new = entry.version > self.last_version
            item = committing if is_new else self.model.visible[entry.key]
            assert (entry.key, entry.metadata, entry.invalidated) == (item.key, item.metadata, item.invalidated)
            assert not item.removed
        assert {entry.key for entry in entries} >= set(self.model.visible)

    @invariant()
    def one_file_an_object(self) -> None:
        objects = sum(len(names) for _, _, names in os.walk(os.path.join(self.path, "objects")))
        assert objects == len(self.model.visible)
        assert len(os.listdir(os.path.join(self.path, "tmp"))) == len(self.writers)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.path)


TestMemoryStore = MemoryStoreMachine.TestCase
TestMemoryStore.settings = examples(80, stateful_step_count=40)
TestDirectoryStore = DirectoryStoreMachine.TestCase
TestDirectoryStore.settings = examples(25, stateful_step_count=30)


class PagedStoreMachine(DirectoryStoreMachine):
    """Nearly all objects are read from the index when they are wanted."""

    inside_max = 1


TestPagedStore = PagedStoreMachine.TestCase
TestPagedStore.settings = examples(25, stateful_step_count=30)
