"""PURE: how a message refers to a segment of the sender's pool."""

from __future__ import annotations

from typing import NamedTuple

SEGMENTS_MAX = 64
"""Maximum number of segments that one message names."""


class SegmentRef(NamedTuple):
    """Where an answer goes: a segment's name, the generation it was prepared for, its size in bytes."""

    name: bytes
    generation: int
    segment_bytes: int
