"""Entry: the facts about one stored object, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object: opaque key and metadata, length of the body, and the version that tells two bodies apart.

    Somebody may have marked it: what that means is for who reads it.
    """

    key: bytes
    size_bytes: int
    version: int
    metadata: bytes = b""
    invalidated: bool = False

    @property
    def cost_bytes(self) -> int:
        """Return what the entry takes of a store's byte budget: the body and its metadata."""
        return self.size_bytes + len(self.metadata)
