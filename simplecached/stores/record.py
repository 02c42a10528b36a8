"""Record: what a store with a budget knows of one object, and where the object stands in its life."""

from __future__ import annotations

from enum import Enum

from simplecached.stores.entry import Entry


class State(Enum):
    """Where a record stands; nothing leads back."""

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
        self.fd = -1  # what the body is written to, and for a MemoryStore also read from
        self.path = ""  # of its file, in a DirectoryStore
        self.state = State.WRITING
        self.removed = False  # somebody removed the key after this write began
        self.invalidated = False
        self.used_tick = 0

    @property
    def entry(self) -> Entry:
        """Return the facts as a value."""
        return Entry(
            key=self.key,
            size_bytes=self.size_bytes,
            version=self.version,
            metadata=self.metadata,
            invalidated=self.invalidated,
        )

    @property
    def cost_bytes(self) -> int:
        """Return what it takes of the byte budget: the body and its metadata."""
        return self.size_bytes + len(self.metadata)
