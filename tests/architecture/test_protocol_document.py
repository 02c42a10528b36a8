"""docs/protocol.md is normative: its offsets, codes and limits are what the code writes on the wire."""

import json
import os
import re
import struct
import zlib
from pathlib import Path

import pytest

from shmchannel.deadline import PEER_CHECK_SECONDS
from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX, MESSAGES_MAX
from shmchannel.objects import commands, hot_table_layout
from shmchannel.objects.commands import Command, CommandKind, Priority, encode
from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.naming import DEFAULT_QUEUE_NAME, SHM_DIRECTORY, entry_name, hot_table_name
from shmchannel.registry import announce, entry_layout
from shmchannel.stats_pages import Buckets, Metric, MetricKind, Schema, Table
from shmchannel.stats_pages import layout as stats_layout
from shmchannel.stats_pages.reader import STUCK_NS
from shmchannel.stats_pages.schema import CELLS_MAX
from shmchannel.streams import layout
from shmchannel.streams.layout import SegmentHeader, SegmentRef
from tests.architecture.tree import generated_part, read, table_rows
from tests.support.hot_tables import LONG_NS, open_hot_table
from tests.support.stats_pages import open_pages
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode as encode_response
from webproxy.caching.stored_codec import encode_index
from webproxy.caching.variants import VARIANTS_MAX, Variant, VariantIndex
from webproxy.getfile import LENGTH_MAX, PATH_BYTES_MAX, REQUEST_BYTES_MAX
from webproxy.http.fields import Fields
from webproxy.serving.new_connection import UNDECIDED_BYTES_MAX
from webproxy.store.lookup import KEY_BYTES_MAX

_DOCUMENT = "docs/protocol.md"


def _fields(part: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each field in a layout table; fields of varying place are left out."""
    rows = table_rows(generated_part(_DOCUMENT, part))
    return {row[2]: (int(row[0]), int(row[1])) for row in rows if row[0].isdigit() and row[1].isdigit()}


def _number(data: bytes, place: tuple[int, int]) -> int:
    offset, size = place
    return int.from_bytes(data[offset : offset + size], "little")


def _filled_segment() -> tuple[bytes, dict[str, int]]:
    """A header in which every field has another value, and those values by the names of the document."""
    memory = bytearray(layout.SEGMENT_BYTES_MIN)
    header = SegmentHeader(memoryview(memory)[: layout.HEADER_BYTES].cast("Q"))
    boot_id = 0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10
    header.initialise(layout.SEGMENT_BYTES_MIN, ProcessIdentity(pid=71, start_time=72, boot_id=boot_id))
    header.publish()
    header.prepare()
    header.write_chunk(81, 82, 83, 84)
    header.write_object(91, 92, 93, ProcessIdentity(pid=94, start_time=95, boot_id=0))
    header.write_request(101)
    values = {"magic": layout.MAGIC, "layout_version": layout.LAYOUT_VERSION, "generation": 1, "boot_id": boot_id}
    values |= {"segment_bytes": layout.SEGMENT_BYTES_MIN, "owner_pid": 71, "owner_start_time": 72}
    values |= {"chunk_capacity": layout.SEGMENT_BYTES_MIN - layout.HEADER_BYTES}
    values |= {"status": 81, "chunk_length": 82, "chunk_offset": 83, "chunk_flags": 84}
    values |= {"object_size": 91, "object_version": 92, "preamble_bytes": 93}
    values |= {"worker_pid": 94, "worker_start_time": 95, "consumer_flags": 101}
    return bytes(memory), values


def test_segment_fields_lie_where_the_document_says() -> None:
    """Every field of the table holds what the code wrote, and the code wrote nothing beside them."""
    fields = _fields("layout: segment")
    semaphores = {name: fields.pop(name) for name in ("data_available", "space_available")}
    memory, values = _filled_segment()
    assert {name: _number(memory, place) for name, place in fields.items()} == values
    assert semaphores["data_available"] == (layout.DATA_AVAILABLE_OFFSET, layout.SEM_BYTES)
    assert semaphores["space_available"] == (layout.SPACE_AVAILABLE_OFFSET, layout.SEM_BYTES)
    rest = bytearray(memory)
    for offset, size in fields.values():
        rest[offset : offset + size] = bytes(size)
    assert not any(rest)


@pytest.mark.parametrize("part", ["layout: segment", "layout: stats page"])
def test_each_line_has_one_writer(part: str) -> None:
    """Fields that share 64 bytes are written by the same side; the semaphores have a line for themselves."""
    writers: dict[int, set[str]] = {}
    for row in table_rows(generated_part(_DOCUMENT, part)):
        writer = re.sub(r"^the ", "", re.split(r"[;,]", row[3])[0])
        writers.setdefault(int(row[0]) // layout.CACHE_LINE_BYTES, set()).add(writer)
    assert len(writers) > 2
    assert all(len(sides) == 1 for sides in writers.values())


def test_the_header_of_a_segment_is_as_documented() -> None:
    assert layout.HEADER_BYTES == 384
    assert f"{layout.MAGIC:#x}".upper().replace("0X", "0x") in read(_DOCUMENT)


def test_command_fields_lie_where_the_document_says() -> None:
    """Every field of the table holds what was encoded, and head, segments and key make up the message."""
    segment = SegmentRef(b"/gf-7-0123abcd-5", 1111, 8192)
    command = Command(
        kind=CommandKind.GET,
        key=b"/some/key",
        segments=(segment,),
        deadline_ns=2222,
        offset=3333,
        length=4444,
        version=5555,
        flags=1,
        priority=int(Priority.HIGH),
        request_id=6666,
        trace_id=bytes(range(16)),
    )
    message = encode(command)
    wanted = {"version": commands.VERSION, "kind": 1, "priority": 2, "flags": 1, "request_id": 6666}
    wanted |= {"deadline_ns": 2222, "offset": 3333, "length": 4444, "object_version": 5555}
    wanted |= {"segment_count": 1, "key_bytes": len(command.key)}
    wanted |= {"magic": int.from_bytes(b"GFC\x01", "little"), "trace_id": int.from_bytes(bytes(range(16)), "little")}
    fields = _fields("layout: command")
    assert {name: _number(message, place) for name, place in fields.items()} == wanted
    covered = [byte for offset, size in fields.values() for byte in range(offset, offset + size)]
    assert sorted(covered) == list(range(commands.HEAD_BYTES))
    tail = bytes([len(segment.name)]) + segment.name + struct.pack("<QQ", 1111, 8192) + command.key
    assert message[commands.HEAD_BYTES :] == tail


def test_the_flags_of_commands_are_as_documented() -> None:
    text = read(_DOCUMENT)
    wanted, from_end, lease = commands.METADATA_WANTED, commands.FROM_END, commands.LEASE
    assert f"{wanted}: metadata wanted; {from_end}: the offset counts back from the end; {lease}: lease wanted" in text
    assert "`leases` with 1" in text
    assert commands.announced_leases("commands 2 leases 1")


def test_hot_table_fields_lie_where_the_document_says() -> None:
    """Header, bucket, cell and record of a hot table with one object, as its publisher wrote them, nothing beside."""
    key, metadata, body = b"/some/key", b"facts", b"body"
    with open_hot_table(1 << 20) as hot_table:
        assert hot_table.put(key, 71, body, metadata, life_ns=LONG_NS)
        assert hot_table.reader.get(key) is not None
        memory = Path(SHM_DIRECTORY + hot_table_name(hot_table.queue_name)).read_bytes()
    places = hot_table_layout.geometry(len(memory))
    header = {"magic": hot_table_layout.MAGIC, "layout_version": hot_table_layout.LAYOUT_VERSION}
    header |= {"hot_table_bytes": len(memory), **places._asdict()}
    fields = _fields("layout: hot table")
    assert {name: _number(memory, place) for name, place in fields.items()} == header
    assert f"{hot_table_layout.MAGIC:#x}".upper().replace("0X", "0x") in read(_DOCUMENT)
    assert places.bucket_count == len(memory) // 8192
    number = zlib.crc32(key) % places.bucket_count
    assert [at for at, mark in enumerate(memory[hot_table_layout.MARKS_AT : places.buckets_at]) if mark] == [8 * number]
    bucket = memory[places.buckets_at + 512 * number :][:512]
    assert _fields("layout: bucket") == {"tag": (0, 4)}
    assert _number(bucket, (0, 4)) == zlib.crc32(key)
    cells_at = hot_table_layout.CELLS_AT
    assert not any(bucket[4:cells_at] + bucket[cells_at + hot_table_layout.CELL_BYTES :])
    found = {name: _number(bucket[cells_at:], place) for name, place in _fields("layout: cell").items()}
    assert found.pop("valid_until_ns") > LONG_NS
    record = key + metadata + body
    line, record_bytes = found["record"] & 0xFFFFFFFF, found.pop("record") >> 32
    assert (64 * line, record_bytes) == (places.arena_at, len(record))
    assert found == {
        "sequence": 2,
        "object_version": 71,
        "key_bytes": len(key),
        "metadata_bytes": len(metadata),
        "file_bytes": 0,
    }
    assert memory[places.arena_at :].rstrip(b"\0") == record
    rows = table_rows(generated_part(_DOCUMENT, "layout: hot table") + generated_part(_DOCUMENT, "layout: bucket"))
    assert [row[0] for row in rows if row[2] in ("marks", "cells")] == [str(hot_table_layout.MARKS_AT), str(cells_at)]


def test_registry_entry_fields_lie_where_the_document_says() -> None:
    """An entry as its process wrote it, and nothing beside its fields."""
    name = f"document-{os.getpid()}"
    with announce("test", name, queue_name="/q", address="a:80", load=2.5, facts={"k": "v"}) as announcement:
        memory = Path(SHM_DIRECTORY + entry_name("test", name)).read_bytes()
        entry = announcement.entry
    fields = _fields("layout: registry entry")
    found = {field: _number(memory, place) for field, place in fields.items()}
    assert found.pop("heartbeat_ns") >= entry.announced_ns
    pid, start_time, boot_id = entry.identity
    assert found == {
        "magic": entry_layout.MAGIC,
        "layout_version": entry_layout.LAYOUT_VERSION,
        "entry_bytes": len(memory),
        "pid": pid,
        "start_time": start_time,
        "boot_id": boot_id,
        "announced_ns": entry.announced_ns,
        "load": 2500,
        "stuck_after_ns": entry.stuck_after_ns,
        "role_bytes": 4,
        "name_bytes": len(name),
        "queue_bytes": 2,
        "address_bytes": 4,
        "facts_bytes": 4,
    }
    assert f"{entry_layout.MAGIC:#x}".upper().replace("0X", "0x") in read(_DOCUMENT)
    text = f"test{name}/qa:80k=v\n".encode()
    assert memory[entry_layout.TEXT_OFFSET :] == text.ljust(len(memory) - entry_layout.TEXT_OFFSET, b"\0")
    rest = bytearray(memory[: entry_layout.TEXT_OFFSET])
    for offset, size in fields.values():
        rest[offset : offset + size] = bytes(size)
    assert not any(rest)


def _filled_page() -> tuple[bytes, bytes, dict[str, int]]:
    """A stats page with a value in each part, its schema, and what its fields hold by the names of the document."""
    schema = Schema(
        (
            Metric(name="a_total", kind=MetricKind.COUNTER, help="A.", labels=("x",), rows=(("1",), ("2",))),
            Metric(name="b", kind=MetricKind.GAUGE, help="B.", labels=("y",), table="rows"),
            Metric(name="c", kind=MetricKind.HISTOGRAM, help="C.", buckets=Buckets(shift=2, octaves=3)),
        ),
        (Table(name="rows", label="y", rows=3),),
    )
    with open_pages("proxy", "who") as pages:
        page = pages.add(7, schema)
        page.begin(ProcessIdentity(pid=81, start_time=82, boot_id=0), started_ns=83)
        page.beat(84)
        page.counter("a_total", "2").add(91)
        page.gauge("b", page.row("rows", "name")).set(92)
        page.histogram("c").observe(100)
        memory = Path(SHM_DIRECTORY + page.name).read_bytes()
    owner = own_identity()
    values = {"magic": stats_layout.MAGIC, "layout_version": stats_layout.LAYOUT_VERSION, "page_bytes": len(memory)}
    values |= {"schema_bytes": len(schema.encoded), "schema_crc32": zlib.crc32(schema.encoded)}
    values |= {"cell_count": 2 + 3 + 1 + 8 * 4 + 1, "slot": 7, "boot_id": owner.boot_id}
    values |= {"owner_pid": owner.pid, "owner_start_time": owner.start_time}
    values |= {"role": int.from_bytes(b"proxy", "little"), "instance": int.from_bytes(b"who", "little")}
    values |= {"writer_pid": 81, "writer_start_time": 82, "started_ns": 83, "heartbeat_ns": 84, "writers_total": 1}
    return memory, schema.encoded, values


def test_stats_page_fields_lie_where_the_document_says() -> None:
    """Header, schema, names and cells, read as a program in another language reads them by the document alone."""
    fields = _fields("layout: stats page")
    memory, schema, values = _filled_page()
    found = {name: _number(memory, place) for name, place in fields.items()}
    places = {name: found.pop(name) for name in ("schema_offset", "names_offset", "cells_offset")}
    assert found == values
    assert places["schema_offset"] == stats_layout.HEADER_BYTES == 320
    assert all(place % 64 == 0 for place in places.values())
    assert memory[places["schema_offset"] :][: len(schema)] == schema
    said = json.loads(schema)
    table = said["tables"][0]
    names = [memory[places["names_offset"] + 256 * (table["first_row"] + row) :][:256] for row in range(table["rows"])]
    assert [name[8:][: int.from_bytes(name[:8], "little")] for name in names] == [b"name", b"", b"other"]
    cells = struct.unpack(f"{values['cell_count']}Q", memory[places["cells_offset"] :][: 8 * values["cell_count"]])
    metrics = {metric["name"]: metric for metric in said["metrics"]}
    rows = metrics["a_total"]["rows"]
    assert cells[metrics["a_total"]["first_cell"] + rows.index(["2"]) * metrics["a_total"]["row_cells"]] == 91
    assert cells[metrics["b"]["first_cell"]] == 92
    histogram = cells[metrics["c"]["first_cell"] :][: metrics["c"]["row_cells"]]
    steps = 100 >> metrics["c"]["shift"]
    octave = steps.bit_length() - 1 - 3
    assert (histogram[0], histogram[1 + 8 * octave + (steps >> octave)], sum(histogram[1:])) == (100, 1, 1)
    assert sum(cells) == 91 + 92 + 100 + 1


def test_limits_of_stats_pages_are_the_ones_of_the_code() -> None:
    section = read(_DOCUMENT).partition("## 10. Stats pages")[2].partition("\n## ")[0]
    for limit in (stats_layout.PAGE_BYTES_MAX, stats_layout.SCHEMA_BYTES_MAX, CELLS_MAX, stats_layout.ROW_TEXT_BYTES):
        assert f"at most {limit}" in section
    assert f"{stats_layout.MAGIC:#x}".upper().replace("0X", "0x") in section
    assert STUCK_NS == 5 * 10**9
    assert "less than five seconds" in section
    members = {row[0] for row in table_rows(section) if row[0].startswith("`")}
    known = set(json.loads(_filled_page()[1])["metrics"][0]) | {"table", "over_pages", "shift", "octaves"}
    assert set(re.findall(r"`(\w+)`", " ".join(members))) == known


def test_metadata_fields_lie_where_the_document_says() -> None:
    """A stored response and an index, as they are written: each field of the tables, and nothing between them."""
    selecting = ((b"accept", b"a/b"), (b"cookie", None))
    stored = StoredResponse(
        status=404,
        fields=Fields([(b"X", b"y")]),
        reason=b"Gone",
        request_time=11.0,
        response_time=12.0,
        initial_age_s=13,
        lifetime_s=14,
        heuristic=True,
        always_validate=True,
        never_stale=True,
        incomplete=True,
        stale_while_revalidate_s=15,
        stale_if_error_s=16,
        selecting=selecting,
        body_bytes=17,
    )
    places = _fields("layout: response metadata")
    data = encode_response(stored)
    found = {name: _number(data, place) for name, place in places.items()}
    assert [struct.pack("<Q", found.pop(f"{name}_time")) for name in ("request", "response")] == [
        struct.pack("<d", 11.0),
        struct.pack("<d", 12.0),
    ]
    wanted = {"kind": 1, "version": 1, "status": 404, "flags": 15, "initial_age_s": 13, "lifetime_s": 14}
    wanted |= {"stale_while_revalidate_s": 15, "stale_if_error_s": 16, "body_bytes": 17}
    wanted |= {"reason_bytes": 4, "selecting_count": 2, "block_bytes": len(b"X: y\r\n")}
    assert found == wanted
    head_bytes = sum(size for _, size in places.values())
    written = struct.pack("<HH", 6, 3) + b"accepta/b" + struct.pack("<HH", 6, 65535) + b"cookie"
    assert data[head_bytes:] == b"Gone" + written + b"X: y\r\n"
    index = encode_index(VariantIndex((Variant(selecting, b'"v"', b"0123456789abcdef"),)))
    places = _fields("layout: index metadata")
    assert {name: _number(index, place) for name, place in places.items()} == {
        "kind": 2,
        "version": 1,
        "variant_count": 1,
    }
    variant = bytes.fromhex("0123456789abcdef") + struct.pack("<HH", 3, 2) + b'"v"' + written
    assert index[sum(size for _, size in places.values()) :] == variant


def test_codes_are_the_ones_of_the_code() -> None:
    """Kinds, statuses and flags with their numbers."""
    text = read(_DOCUMENT)
    rows = table_rows(text)
    kinds = {row[0]: int(row[1]) for row in rows if row[0] in CommandKind.__members__}
    assert kinds == {kind.name: kind.value for kind in CommandKind}
    coded = [row for row in rows if len(row) == 8]
    names = (
        ("OK", "NOT_FOUND", "FAILED", "CANCELLED", "OTHER_VERSION"),
        ("LAST", "ERROR", "RELEASED", "PREAMBLE", "FLAGGED"),
        ("CANCEL", "RELEASE", "PAUSE"),
    )
    for column, group in zip((0, 3, 6), names, strict=True):
        documented = {row[column]: int(row[column + 1]) for row in coded if row[column]}
        assert documented == {name: getattr(layout, name) for name in group}
    priorities = next(row for row in rows if row[2:3] == ["priority"])[3]
    assert re.findall(r"(\d) (\w+)", priorities) == [(str(p.value), p.name.lower()) for p in Priority]


def test_limits_are_the_ones_of_the_code() -> None:
    """The table of section 8, and the numbers in the text."""
    section = read(_DOCUMENT).partition("## 8. Limits")[2].partition("\n## ")[0]
    limits = {row[0]: int(row[1]) for row in table_rows(section)}
    assert limits == {
        "getfile path": PATH_BYTES_MAX,
        "getfile request": REQUEST_BYTES_MAX,
        "key": commands.KEY_BYTES_MAX,
        "message": MESSAGE_BYTES_MAX,
        "messages waiting in a queue": MESSAGES_MAX,
        "segments of one transfer": commands.SEGMENTS_MAX,
        "metadata": layout.PREAMBLE_BYTES_MAX,
        "segment, smallest": layout.SEGMENT_BYTES_MIN,
        "segment, largest": layout.SEGMENT_BYTES_MAX,
        "slice of a wait, milliseconds": round(PEER_CHECK_SECONDS * 1000),
        "hot table, smallest": hot_table_layout.HOT_TABLE_BYTES_MIN,
        "hot table, largest": hot_table_layout.HOT_TABLE_BYTES_MAX,
        "record of a hot table": hot_table_layout.RECORD_BYTES_MAX,
        "body on a hot table": hot_table_layout.BODY_BYTES_MAX,
        "registry entry": entry_layout.ENTRY_BYTES,
        "address in a registry entry": entry_layout.ADDRESS_BYTES_MAX,
        "facts in a registry entry": entry_layout.FACTS_BYTES_MAX,
    }
    text = read(_DOCUMENT)
    assert f"at most {LENGTH_MAX}" in text
    assert f"at most {KEY_BYTES_MAX} bytes (longer ones are not stored by HTTP)" in text
    assert f"| {UNDECIDED_BYTES_MAX} bytes without a line end |" in text
    assert f"| at most {VARIANTS_MAX} |" in text
    assert f"`{DEFAULT_QUEUE_NAME}`" in text
