"""PURE: the byte layout of a registry entry, written once (normative text: docs/protocol.md 9).

    off  size  field                 written by the process that announces itself
      0     8  magic                 LAST: its arrival publishes the entry
      8     8  layout version
     16     8  entry size in bytes
     24     8  pid
     32     8  start time            clock ticks since boot, as in /proc/PID/stat
     40    16  boot id
     56     8  announced             CLOCK_MONOTONIC nanoseconds
     64     8  heartbeat             CLOCK_MONOTONIC nanoseconds; changes
     72     8  load                  in thousandths; changes
    128     8  stuck after           nanoseconds; 0: it has no heartbeat
    136     8  role length
    144     8  name length
    152     8  queue length
    160     8  address length
    168     8  facts length
    192   ...  role, name, queue, address, facts, without a gap, in UTF-8

Only heartbeat and load change after publication. Each is one 64-bit word with one writer, and neither says anything
about the other, so that no sequence number is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.process.identity import ProcessIdentity
from shmchannel.process.naming import checked_queue_name, entry_name

MAGIC = 0x31_47_45_52_46_47_01  # "\x01GFREG1" in little-endian order
LAYOUT_VERSION = 1
ENTRY_BYTES = 4096
TEXT_OFFSET = 192
ADDRESS_BYTES_MAX = 512
FACTS_BYTES_MAX = 2048
LOAD_MAX = 1e12

# Indices of the words that change.
HEARTBEAT, LOAD = 8, 9

_LOAD_UNIT = 1000
_STATIC = Struct("<5Q16sQ")
_LENGTHS = Struct("<6Q")
_LENGTHS_OFFSET = 128


class Entry(NamedTuple):
    """What a process announces of itself once and for all; `queue_name` and `address` are empty if it has none."""

    role: str
    name: str
    identity: ProcessIdentity
    announced_ns: int
    stuck_after_ns: int
    queue_name: str
    address: str
    facts: Mapping[str, str]


def encode(entry: Entry) -> bytes:
    """The bytes of an entry, without its magic, heartbeat and load.

    Raises:
        UsageError: a text is malformed or too long.
    """
    entry_name(entry.role, entry.name)
    if entry.queue_name:
        checked_queue_name(entry.queue_name)
    texts = [
        text.encode(errors="surrogateescape")
        for text in (entry.role, entry.name, entry.queue_name, entry.address, _lines(entry.facts))
    ]
    for what, text, most in (("address", texts[3], ADDRESS_BYTES_MAX), ("facts", texts[4], FACTS_BYTES_MAX)):
        if len(text) > most:
            raise UsageError(f"{what} of {len(text)} bytes", hint=f"at most {most}")
    pid, start_time, boot_id = entry.identity
    static = _STATIC.pack(
        0, LAYOUT_VERSION, ENTRY_BYTES, pid, start_time, boot_id.to_bytes(16, "little"), entry.announced_ns
    )
    lengths = _LENGTHS.pack(entry.stuck_after_ns, *map(len, texts))
    head = static.ljust(_LENGTHS_OFFSET, b"\0") + lengths
    return (head.ljust(TEXT_OFFSET, b"\0") + b"".join(texts)).ljust(ENTRY_BYTES, b"\0")


def decode(block: bytes) -> Entry:
    """The entry in a block.

    Raises:
        LayoutMismatch: it is not published yet, of another layout, or damaged.
    """
    if len(block) != ENTRY_BYTES:
        raise LayoutMismatch(f"a registry entry has {ENTRY_BYTES} bytes, not {len(block)}")
    magic, version, entry_bytes, pid, start_time, boot_id, announced_ns = _STATIC.unpack_from(block)
    if magic == 0:
        raise LayoutMismatch("the registry entry is not published yet")
    if (magic, version, entry_bytes) != (MAGIC, LAYOUT_VERSION, ENTRY_BYTES):
        raise LayoutMismatch(f"a registry entry of magic {magic:#x}, version {version} and {entry_bytes} bytes")
    stuck_after_ns, *lengths = _LENGTHS.unpack_from(block, _LENGTHS_OFFSET)
    if sum(lengths) > ENTRY_BYTES - TEXT_OFFSET:
        raise LayoutMismatch(f"texts of {lengths} bytes do not fit a registry entry")
    texts, at = [], TEXT_OFFSET
    for length in lengths:
        texts.append(block[at : at + length].decode(errors="surrogateescape"))
        at += length
    role, name, queue_name, address, facts = texts
    identity = ProcessIdentity(pid, start_time, int.from_bytes(boot_id, "little"))
    return Entry(role, name, identity, announced_ns, stuck_after_ns, queue_name, address, _facts(facts))


def encode_load(load: float) -> int:
    """The word of a load.

    Raises:
        UsageError: it is negative, not a number, or beyond LOAD_MAX.
    """
    if not (0 <= load <= LOAD_MAX) or math.isnan(load):
        raise UsageError(f"load {load} is not valid", hint=f"a load is a number from 0 to {LOAD_MAX:.0e}")
    return round(load * _LOAD_UNIT)


def decode_load(word: int) -> float:
    """The load in a word."""
    return word / _LOAD_UNIT


def _lines(facts: Mapping[str, str]) -> str:
    for key, value in facts.items():
        if not key or "=" in key or "\n" in key + value:
            raise UsageError(f"fact {key!r}: {value!r} is not valid", hint="no '=' in its name, and no line ends")
    return "".join(f"{key}={value}\n" for key, value in facts.items())


def _facts(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.split("\n") if line)
    return {key: value for key, _, value in pairs}
