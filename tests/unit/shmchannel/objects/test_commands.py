"""The codec: the bytes of docs/protocol.md 2, and what is refused. Any bytes at all are in tests/property."""

from __future__ import annotations

import struct

import pytest

from shmchannel.errors import CommandError
from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX
from shmchannel.objects.commands import (
    ANNOUNCEMENT,
    FACTS_ONLY,
    FROM_END,
    HEAD_BYTES,
    INVALIDATE,
    KEY_BYTES_MAX,
    METADATA_WANTED,
    PREFIX,
    VERSION,
    Command,
    CommandKind,
    Priority,
    announced_leases,
    announced_object_bytes,
    announced_version,
    announcement,
    decode,
    encode,
    other_version,
)
from shmchannel.process.naming import pool_name, segment_name
from shmchannel.streams.layout import SEGMENTS_MAX, SegmentRef

COMMAND = Command(
    CommandKind.GET,
    b"/a/key",
    (SegmentRef(b"/gf-1-00000000-0", 3, 512), SegmentRef(b"/gf-1-00000000-7", 2**64 - 1, 2**32)),
    deadline_ns=11,
    offset=12,
    length=13,
    version=14,
    flags=METADATA_WANTED,
    priority=int(Priority.HIGH),
    request_id=15,
    trace_id=bytes(range(16)),
)
WIRE = (
    b"GFC\x01" + bytes([2, 1, 2, 1]) + struct.pack("<Q", 15) + bytes(range(16))
    + struct.pack("<QQQQHH", 11, 12, 13, 14, 2, 6)
    + b"\x10/gf-1-00000000-0" + struct.pack("<QQ", 3, 512)
    + b"\x10/gf-1-00000000-7" + struct.pack("<QQ", 2**64 - 1, 2**32)
    + b"/a/key"
)  # fmt: skip


def changed(offset: int, value: bytes) -> bytes:
    """The good message with other bytes at an offset."""
    return WIRE[:offset] + value + WIRE[offset + len(value) :]


def test_bytes() -> None:
    assert encode(COMMAND) == WIRE
    assert decode(WIRE) == COMMAND


def test_numbers_never_change() -> None:
    assert {kind.name: int(kind) for kind in CommandKind} == {"GET": 1, "PUT": 2, "PURGE": 3, "PING": 4, "UPDATE": 5}
    assert [int(priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT)] == [
        0,
        1,
        2,
        3,
    ]


UPDATE_WIRE = (
    b"GFC\x01" + bytes([2, 5, 1, 0]) + struct.pack("<Q", 9) + bytes(16)
    + struct.pack("<QQQQHH", 8, 0, 0, 7, 1, 2)
    + b"\x10/gf-1-00000000-0" + struct.pack("<QQ", 3, 512)
    + b"/a"
)  # fmt: skip
INVALIDATE_WIRE = b"GFC\x01" + bytes([2, 3, 3, 3]) + bytes(56) + struct.pack("<HH", 0, 2) + b"/a"


@pytest.mark.parametrize(
    ("wire", "command"),
    [
        pytest.param(
            UPDATE_WIRE,
            Command(
                CommandKind.UPDATE,
                b"/a",
                (SegmentRef(b"/gf-1-00000000-0", 3, 512),),
                deadline_ns=8,
                version=7,
                request_id=9,
            ),
            id="update",
        ),
        pytest.param(
            INVALIDATE_WIRE,
            Command(CommandKind.PURGE, b"/a", flags=PREFIX | INVALIDATE, priority=int(Priority.URGENT)),
            id="invalidate",
        ),
    ],
)
def test_bytes_of_update_and_invalidate(wire: bytes, command: Command) -> None:
    assert encode(command) == wire
    assert decode(wire) == command


def test_least_command() -> None:
    ping = Command(CommandKind.PING, b"")
    assert len(encode(ping)) == HEAD_BYTES == 68
    assert decode(encode(ping)) == ping


def test_most_that_a_client_sends_fits_a_message() -> None:
    name = segment_name(pool_name(9_999_999_999, "ffffffff"), 10**19 - 1).encode()
    command = Command(CommandKind.GET, b"k" * KEY_BYTES_MAX, (SegmentRef(name, 1, 512),) * SEGMENTS_MAX)
    assert len(encode(command)) <= MESSAGE_BYTES_MAX
    assert decode(encode(command)) == command


@pytest.mark.parametrize(
    "message",
    [
        b"",
        WIRE[: HEAD_BYTES - 1],
        WIRE[:-1],
        WIRE + b"x",
        WIRE[:HEAD_BYTES],
        WIRE[: HEAD_BYTES + 5],
        changed(0, b"X"),
        changed(3, b"\x02"),
        changed(4, b"\x01"),
        changed(4, b"\x03"),
        changed(5, b"\x00"),
        changed(5, b"\x06"),
        changed(6, b"\x04"),
        changed(7, b"\x08"),
        changed(7, b"\xff"),
        changed(64, struct.pack("<H", 3)),
        changed(64, struct.pack("<H", 1)),
        changed(64, struct.pack("<H", SEGMENTS_MAX + 1)),
        changed(64, struct.pack("<H", 0xFFFF)),
        changed(66, struct.pack("<H", 5)),
        changed(66, struct.pack("<H", KEY_BYTES_MAX + 1)),
        changed(68, b"\xff"),
    ],
)
def test_refused(message: bytes) -> None:
    with pytest.raises(CommandError):
        decode(message)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (CommandKind.GET, 8),
        (CommandKind.PUT, 1),
        (CommandKind.PURGE, 8),
        (CommandKind.PING, 1),
        (CommandKind.UPDATE, 1),
        (CommandKind.UPDATE, 2),
    ],
)
def test_flags_that_the_kind_does_not_have(kind: CommandKind, flags: int) -> None:
    with pytest.raises(CommandError, match=kind.name):
        decode(encode(Command(kind, b"/a", flags=flags)))


@pytest.mark.parametrize(
    "command",
    [
        COMMAND._replace(key=b"k" * (KEY_BYTES_MAX + 1)),
        COMMAND._replace(segments=(SegmentRef(b"n", 1, 1),) * (SEGMENTS_MAX + 1)),
        COMMAND._replace(segments=(SegmentRef(b"n" * 256, 1, 1),)),
        COMMAND._replace(segments=(SegmentRef(b"n", -1, 1),)),
        COMMAND._replace(offset=-1),
        COMMAND._replace(length=2**64),
        COMMAND._replace(priority=256),
    ],
)
def test_value_that_does_not_fit(command: Command) -> None:
    with pytest.raises(CommandError):
        encode(command)


def test_what_another_version_sent_is_told_apart() -> None:
    """From a command of ours, also a broken one, and from what is no command at all."""
    assert [other_version(changed(4, bytes([version]))) for version in (1, VERSION, 3)] == [1, None, 3]
    assert [other_version(message) for message in (b"", WIRE[: HEAD_BYTES - 1], changed(0, b"X"))] == [None] * 3
    assert decode(changed(4, b"\x01"), 1) == COMMAND


@pytest.mark.parametrize(
    ("text", "version"), [(ANNOUNCEMENT, VERSION), ("commands 3", 3), ("", 1), ("commands", 1), ("commands x", 1)]
)
def test_what_a_cache_announces(text: str, version: int) -> None:
    assert announced_version(text) == version


def test_a_cache_announces_whether_it_grants_leases() -> None:
    texts = [announcement(size, grants_leases=grants) for grants in (True, False) for size in (None, 5)]
    assert [announced_leases(text) for text in texts] == [True, True, False, False]
    assert [announced_object_bytes(text) for text in texts] == [None, 5] * 2
    assert not any(announced_leases(text) for text in ("", "leases", "commands 2 leases 2", "commands 2 leases x"))


def test_a_cache_announces_the_largest_object_that_it_stores() -> None:
    assert [announced_object_bytes(announcement(size)) for size in (None, 0, 1 << 40)] == [None, 0, 1 << 40]
    assert announced_version(announcement(5)) == VERSION
    assert [announced_object_bytes(text) for text in ("", "commands 2 object", "commands 2 object x")] == [None] * 3
    assert announced_object_bytes("commands 2 colour 3 object 4") == 4


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({}, (0, 100)),
        ({"offset": 10}, (10, 100)),
        ({"offset": 10, "length": 20}, (10, 30)),
        ({"offset": 90, "length": 20}, (90, 100)),
        ({"offset": 100}, (100, 100)),
        ({"offset": FACTS_ONLY}, (100, 100)),
        ({"offset": 10, "flags": FROM_END}, (90, 100)),
        ({"offset": 100, "flags": FROM_END}, (0, 100)),
        ({"offset": 101, "flags": FROM_END}, (0, 100)),
        ({"offset": 30, "length": 20, "flags": FROM_END}, (70, 90)),
    ],
)
def test_the_part_of_an_object_that_a_get_asks_for(asked: dict[str, int], part: tuple[int, int]) -> None:
    assert Command(CommandKind.GET, b"/a", **asked).range_in(100) == part  # type: ignore[arg-type]
