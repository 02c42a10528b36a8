"""PURE: commands ↔ bytes, little-endian and versioned (normative text: docs/protocol.md 2).

off  size  field
  0     4  magic "GFC\\x01"
  4     1  version
  5     1  kind
  6     1  priority, 0 (low) to 3 (urgent)
  7     1  flags
  8     8  request id
 16    16  trace id, for logs
 32     8  deadline, CLOCK_MONOTONIC nanoseconds
 40     8  offset in the object
 48     8  length in bytes, 0 = to the end (PUT: the object's size; UPDATE: 0)
 56     8  object version that must match, 0 = any; of a GET that asks for a lease, the number of one found void;
           of a PUT, the number of the lease under which the object was fetched
 64     2  count of segments
 66     2  length of the key
 68   ...  segments: name length (1), name, generation (8), segment size (8)
      ...  key
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from shmchannel.errors import CommandError
from shmchannel.streams.layout import PREAMBLE_BYTES_MAX, SEGMENTS_MAX, SegmentRef

KEY_BYTES_MAX = 4096
METADATA_BYTES_MAX = PREAMBLE_BYTES_MAX
MAGIC = b"GFC\x01"
VERSION = 2
OLD_VERSION = 1
"""The previous version: its commands have the same fields in the same places, so they can be refused explicitly."""
ANNOUNCEMENT = f"commands {VERSION}"
"""The announcement of any cache on its queue; announcement() adds to it."""
TRACE_BYTES = 16
_HEAD = struct.Struct("<4sBBBBQ16sQQQQHH")
_REF_TAIL = struct.Struct("<QQ")

HEAD_BYTES = _HEAD.size
assert HEAD_BYTES == 68


class CommandKind(IntEnum):
    """The kind of a command. New kinds are added, never renumbered."""

    GET = 1
    PUT = 2
    PURGE = 3
    PING = 4
    UPDATE = 5


class Priority(IntEnum):
    """Also the queue's priority: the kernel delivers the highest first, FIFO within each."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


METADATA_WANTED = 1
"""Flag of GET: send the object's metadata ahead of its body."""
FROM_END = 2
"""Flag of GET: the offset counts back from the object's end."""
LEASE = 4
"""Flag of GET: if there is no such object, and nothing below its key, say who fetches it: the asker, or who does."""
FACTS_ONLY = (1 << 64) - 1
"""The offset of a GET that wants no byte of the body: it is beyond the end of any object."""
PREFIX = 1
"""Flag of PURGE: the key is a prefix."""
INVALIDATE = 2
"""Flag of PURGE: the objects are kept but invalidated; each GET of their metadata reports it."""
BELOW = 4
"""Flag of PURGE: first everything below the key (`key NUL ...`), then the key."""

_KINDS = {int(kind): kind for kind in CommandKind}
_FLAGS_KNOWN = {CommandKind.GET: METADATA_WANTED | FROM_END | LEASE, CommandKind.PURGE: PREFIX | INVALIDATE | BELOW}
_FLAGS_REFUSED = {int(kind): ~_FLAGS_KNOWN.get(kind, 0) for kind in CommandKind}
_PRIORITY_MAX = int(Priority.URGENT)


class FetchLease(NamedTuple):
    """Who fetches an object that the cache lacks."""

    number: int
    """Never 0; no two leases of one cache have the same."""
    holder: str
    """The pool of the process that fetches it."""


class Command(NamedTuple):
    """One command from a proxy to a cache; times in CLOCK_MONOTONIC nanoseconds, sizes in bytes."""

    kind: CommandKind
    key: bytes
    segments: tuple[SegmentRef, ...] = ()
    deadline_ns: int = 0
    offset: int = 0
    length: int = 0
    version: int = 0
    flags: int = 0
    priority: int = int(Priority.NORMAL)
    request_id: int = 0
    trace_id: bytes = bytes(TRACE_BYTES)
    """What it belongs to, for logs; fewer bytes are filled up with NUL."""

    def range_in(self, size_bytes: int) -> tuple[int, int]:
        """The part of an object of this size that a GET requests, as [start, end)."""
        start = min(self.offset, size_bytes)
        if self.flags & FROM_END:
            start = size_bytes - start
        return start, min(start + self.length, size_bytes) if self.length else size_bytes


def encode(command: Command) -> bytes:
    """The bytes of a command.

    Raises:
        CommandError: a value is out of range.
    """
    kind, key, segments, deadline_ns, offset, length, version, flags, priority, request_id, trace_id = command
    if len(key) > KEY_BYTES_MAX or len(segments) > SEGMENTS_MAX:
        raise CommandError(
            f"key of {len(key)} bytes with {len(segments)} segments: at most {KEY_BYTES_MAX} and {SEGMENTS_MAX}"
        )
    try:
        parts = [
            _HEAD.pack(
                MAGIC, VERSION, kind, priority, flags, request_id, trace_id,
                deadline_ns, offset, length, version, len(segments), len(key),
            )
        ]  # fmt: skip
        for name, generation, segment_bytes in segments:
            parts += (len(name).to_bytes(1, "little"), name, _REF_TAIL.pack(generation, segment_bytes))
    except (struct.error, OverflowError) as error:
        raise CommandError(f"{kind.name}: {error}") from error
    parts.append(key)
    return b"".join(parts)


def announcement(object_bytes_max: int | None, *, grants_leases: bool = False) -> str:
    """The announcement of a cache on its queue: its version, the largest object that it stores, if limited, leases."""
    said = ANNOUNCEMENT if object_bytes_max is None else f"{ANNOUNCEMENT} object {object_bytes_max}"
    return f"{said} leases 1" if grants_leases else said


def announced_version(text: str) -> int:
    """The version that a cache speaks, by its announcement; version 1 announced nothing."""
    version = _announced(text, "commands")
    return OLD_VERSION if version is None else version


def announced_object_bytes(text: str) -> int | None:
    """The largest object that a cache stores, by its announcement; None if it does not say."""
    return _announced(text, "object")


def announced_leases(text: str) -> bool:
    """Whether a cache answers a GET with LEASE, by its announcement; others drop such a command."""
    return _announced(text, "leases") == 1


def _announced(text: str, word: str) -> int | None:
    words = text.split()
    number = dict(zip(words[::2], words[1::2], strict=False)).get(word, "")
    return int(number) if number.isdecimal() else None


def other_version(message: bytes) -> int | None:
    """The version of a command of another version; None for one of ours, and for anything that is not a command."""
    if len(message) < HEAD_BYTES or not message.startswith(MAGIC):
        return None
    version = message[len(MAGIC)]
    return None if version == VERSION else version


def decode(message: bytes, version: int = VERSION) -> Command:
    """The command in `message`, which is not trusted: parsed or refused, nothing else.

    Raises:
        CommandError: wrong magic, version, kind, flags or priority, or lengths that do not add up.
    """
    if len(message) < HEAD_BYTES:
        raise CommandError(f"{len(message)} bytes are not a command")
    (magic, wire_version, kind_code, priority, flags, request_id, trace_id,
     deadline_ns, offset, length, object_version, segment_count, key_bytes) = _HEAD.unpack_from(message)  # fmt: skip
    kind = _KINDS.get(kind_code)
    if magic != MAGIC or wire_version != version or kind is None:
        raise CommandError(f"magic {magic!r} version {wire_version} kind {kind_code} is not supported")
    if priority > _PRIORITY_MAX or flags & _FLAGS_REFUSED[kind_code]:
        raise CommandError(f"{kind.name}: priority {priority} or flags {flags:#x} unknown")
    if segment_count > SEGMENTS_MAX or key_bytes > KEY_BYTES_MAX:
        raise CommandError(f"{kind.name}: {segment_count} segments and a key of {key_bytes} bytes are too many")
    segments, position = _decode_segments(message, segment_count)
    if position + key_bytes != len(message):
        raise CommandError(
            f"{kind.name}: {len(message)} bytes, but the lengths inside add up to {position + key_bytes}"
        )
    return Command(
        kind,
        message[position:],
        segments,
        deadline_ns,
        offset,
        length,
        object_version,
        flags,
        priority,
        request_id,
        trace_id,
    )


def _decode_segments(message: bytes, count: int) -> tuple[tuple[SegmentRef, ...], int]:
    position = HEAD_BYTES
    refs = []
    for _ in range(count):
        end = position + 1 + message[position] if position < len(message) else len(message) + 1
        if end + _REF_TAIL.size > len(message):
            raise CommandError("the list of segments is truncated")
        generation, segment_bytes = _REF_TAIL.unpack_from(message, end)
        refs.append(SegmentRef(message[position + 1 : end], generation, segment_bytes))
        position = end + _REF_TAIL.size
    return tuple(refs), position
