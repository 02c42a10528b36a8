"""Record: one object of a store with a budget, and the state of its life."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The state of a record; transitions go forward only."""

    WRITING = "writing"
    VISIBLE = "visible"
    LEAVING = "leaving"


@dataclass(slots=True, eq=False)
class Record:
    """One object from its reservation to its last reader; compared by identity, and its own name in the index.

    It may be invalidated; what that means is up to its readers.
    """

    key: bytes
    size_bytes: int
    metadata: bytes
    version: int = 0  # 0 before its commit; distinguishes bodies of one key
    invalidated: bool = False
    used_tick: int = 0  # in a DirectoryStore; a higher one was used later
    fd: int = -1  # the body is written to it, and in a MemoryStore also read from it
    path: str = ""  # name of its file, in a DirectoryStore
    identity: tuple[int, int] = (0, 0)  # device and inode of that file, once it was open
    row_tick: int = -1  # the tick in its row of a DirectoryStore's index; -1: it has none yet
    state: State = State.WRITING
    removed: bool = False  # the key was removed after this write began

    @property
    def cost_bytes(self) -> int:
        """Return its share of the byte budget: body and metadata."""
        return self.size_bytes + len(self.metadata)
