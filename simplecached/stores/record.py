"""Record: one object of a store with a budget, and the state of its life."""

from __future__ import annotations

from enum import Enum

from simplecached.stores.entry import Entry


class State(Enum):
    """The state of a record; transitions go forward only."""

    WRITING = "writing"
    VISIBLE = "visible"
    LEAVING = "leaving"


class Record:
    """One object from its reservation to its last reader; compared by identity, and its own name in the index."""

    __slots__ = (
        "fd",
        "invalidated",
        "key",
        "metadata",
        "path",
        "removed",
        "size_bytes",
        "state",
        "used_tick",
        "version",
    )

    def __init__(self, key: bytes, size_bytes: int, metadata: bytes, version: int = 0) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.metadata = metadata
        self.version = version  # 0 before its commit
        self.fd = -1  # the body is written to it, and in a MemoryStore also read from it
        self.path = ""  # name of its file, in a DirectoryStore
        self.state = State.WRITING
        self.removed = False  # the key was removed after this write began
        self.invalidated = False
        self.used_tick = 0

    @property
    def entry(self) -> Entry:
        """Return the entry as a value."""
        return Entry(
            key=self.key,
            size_bytes=self.size_bytes,
            version=self.version,
            metadata=self.metadata,
            invalidated=self.invalidated,
        )

    @property
    def cost_bytes(self) -> int:
        """Return its share of the byte budget: body and metadata."""
        return self.size_bytes + len(self.metadata)
