"""HotObjects: keeps the objects of the cache in the hot table, so that proxies find them without a command.

An object gets there when it is stored, and when a command finds it and it is not there: a small one completely, a large
immutable one as a reference to its file. It stays until the store says that it has changed or is gone. A small one that
has to give way stays as a reference; if it is used all the same, or somebody who cannot open the file asks for it, it
comes back whole. An invalidated object is not published, because the table cannot say
so.

Where files of others are served, which may change and hide stored objects at any time, an object gets there only when
a command has found it, and its life is short.

The store does not see what proxies read from the table. note_uses() tells it, about once a second, from the marks that
they leave.
"""

from __future__ import annotations

import logging
import os
from itertools import islice
from typing import TYPE_CHECKING

from shmchannel.objects.hot_table_layout import BODY_BYTES_MAX
from simplecached.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shmchannel.objects.commands import Command
    from shmchannel.objects.hot_table_writer import HotTableToken, HotTableWriter
    from simplecached.stores.lru_store import LruStore
    from simplecached.stores.record import Record
    from simplecached.stores.store import StoredObject

log = logging.getLogger(__name__)

FILE_SECONDS = 0.1
"""Life in the hot table where files of others are served: the time until a changed or new file is noticed."""

USES_AT_ONCE = 8192
"""Uses that are noted in one call; with more objects in use it takes several calls to get round."""
_LOCKED_USES = 256
_WHOLE_AT_ONCE = 64
"""Small objects in use that come back whole in one call."""


class HotObjects:
    """Thread-safe."""

    def __init__(self, hot_table: HotTableWriter, store: LruStore, life_s: float | None) -> None:
        """`life_s` is None where only objects of the store are served. The store's changes are heard from now on."""
        self._hot_table = hot_table
        self._store = store
        self._life_ns = _nanoseconds(life_s)
        store.tell_changes(self._drop, hot_table.clear)

    def begin(self, command: Command) -> HotTableToken | None:
        """Before the lookup: a token, if what this GET finds can be published."""
        return None if command.version else self._hot_table.begin(command.key)  # with a version it resumes a transfer

    def publish(self, token: HotTableToken, key: bytes, found: StoredObject) -> None:
        """After the answer: publish the object unless it is invalidated; never raises."""
        if found.invalidated:
            return
        hot_table, life_ns, version = self._hot_table, self._life_ns, found.version
        recheck = found.recheck()
        is_large = found.size_bytes > BODY_BYTES_MAX
        if recheck is None and hot_table.lengthen(token, key, version, by_file=is_large, life_ns=life_ns):
            return
        is_there = False
        if not is_large:
            try:
                body = os.pread(found.fd, found.size_bytes, 0)
            except OSError as error:
                log.debug("object not added to the hot table", extra={"key": key, "reason": str(error)})
                return
            if len(body) == found.size_bytes and (recheck is None or recheck()):
                is_there = hot_table.publish(token, key, version, found.metadata, body, life_ns=life_ns)
        elif recheck is None:
            seen = self._store.look(key, locate=True)
            if seen is not None and seen.version == version and seen.file is not None:
                is_there = hot_table.publish_file(token, key, version, found.metadata, seen.file, life_ns=life_ns)
        self._refer_evicted()
        log.debug("object offered to the hot table", extra={"key": key, "is_there": is_there})

    def missed(self, key: bytes) -> None:
        """A command has not found the object, and this is about to be said: nobody finds it after that.

        A file of others can be gone while its last copy is there, or is about to be published by a slower thread.
        """
        if self._life_ns is not None:
            self._hot_table.drop(key)

    def stored(self, key: bytes, version: int, body: bytes | None) -> None:
        """An object was stored: publish it. `body` is its whole body, or None if it is larger than BODY_BYTES_MAX."""
        if self._life_ns is not None:
            return
        token = self._hot_table.begin(key)
        seen = self._store.look(key, locate=body is None)
        if seen is None or seen.version != version or seen.invalidated:
            return
        if body is not None:
            self._hot_table.publish(token, key, version, seen.metadata, body)
        elif seen.file is not None:
            self._hot_table.publish_file(token, key, version, seen.metadata, seen.file)
        self._refer_evicted()

    def _refer_evicted(self) -> None:
        """Put references where small objects have given way."""
        for key in self._hot_table.take_evicted():
            token = self._hot_table.begin(key)
            seen = self._store.look(key, locate=True)
            if seen is not None and not seen.invalidated and seen.file is not None:
                self._hot_table.publish_file(token, key, seen.version, seen.metadata, seen.file)

    def _drop(self, records: Sequence[Record]) -> None:
        for record in records:
            self._hot_table.drop(record.key)

    def start_over(self, life_s: float | None) -> None:
        """Remove everything, and publish with another life from now on."""
        self._life_ns = _nanoseconds(life_s)
        self._hot_table.clear()

    def note_uses(self) -> None:
        """Tell the store which objects proxies have read in the hot table; to be called about once a second."""
        used = self._hot_table.take_used(USES_AT_ONCE)
        keys = (object_.key for object_ in used)
        while batch := list(islice(keys, _LOCKED_USES)):
            self._store.touch(batch)
        small = (object_.key for object_ in used if 0 < object_.file_bytes <= BODY_BYTES_MAX)
        for key in islice(small, _WHOLE_AT_ONCE):
            self._bring_back(key)

    def _bring_back(self, key: bytes) -> None:
        token = self._hot_table.begin(key)
        try:
            found = self._store.open(key)
        except StoreUnavailable as error:
            log.debug("object not added to the hot table", extra={"key": key, "reason": str(error)})
            return
        if found is not None:
            with found:
                self.publish(token, key, found)


def _nanoseconds(life_s: float | None) -> int | None:
    return None if life_s is None else round(life_s * 1e9)
