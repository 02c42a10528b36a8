"""Entry: key, metadata, size and version of one stored object, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object: opaque key and metadata, length of the body, and the version that distinguishes bodies of one key.

    It may be invalidated; what that means is up to its readers.
    """

    key: bytes
    size_bytes: int
    version: int
    metadata: bytes = b""
    invalidated: bool = False

    @property
    def cost_bytes(self) -> int:
        """Return the entry's share of the store's byte budget: body and metadata."""
        return self.size_bytes + len(self.metadata)
