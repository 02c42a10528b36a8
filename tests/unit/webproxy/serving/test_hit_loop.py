"""The compiled loop for hits: a known request has the reply, the counts and the line that Python would give it."""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns, time
from typing import TYPE_CHECKING, cast

import pytest

from shmchannel.objects.hot_table_layout import VALID_UNTIL_AT
from shmchannel.stats_pages.histogram import LATENCY
from tests.support.programs import skip_for_want_of
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.parser import RequestParser
from webproxy.serving.hit_loop import LearnedReply
from webproxy.serving.parking import IdleConnections
from webproxy.telemetry.log_line import LogFormat, fixed_parts, line_template
from webproxy.telemetry.request_counts import RequestCounts
from webproxy.telemetry.requests import CacheResult, RequestRecord
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import IdleJob

if TYPE_CHECKING:
    from webproxy.serving.http1_server import Http1Server
    from webproxy.serving.native_hits import HitLoop

SEQUENCE_AT, BODY_AT, MAPPED_BYTES = 64, 256, 32_768
SEQUENCE = 6
HOUR_NS = 3_600_000_000_000
KEPT = b" HTTP/1.1\r\nHost: h\r\nUser-Agent: a\r\n\r\n"
CLOSING = b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
HEADS = ResponseHeads(b"test")


class Rig:
    """A loop, with one object in a hot table of its own."""

    def __init__(self, form: LogFormat | None = None, staying_max: int = 0) -> None:
        try:
            from webproxy.serving.native_hits import HitLoop
        except ImportError as error:
            skip_for_want_of(f"the compiled loop for hits ({error})")
        self.idle = IdleConnections()
        self.mapping = mmap.mmap(-1, MAPPED_BYTES)
        self.marks = bytearray(8)
        self.server = cast("Http1Server", object())
        self.counts = RequestCounts.private("http")
        self.event = self.counts.hot_event("", 0)
        self.clients: list[tuple[bytes, int, int]] = []
        self.lines: list[bytes] = []
        self.told = 0
        self.is_ready = True
        log = None if form is None else (line_template(form), self._tell, self.lines.append, b"token")
        self.loop: HitLoop = HitLoop(
            connection_type=HttpConnection,
            stream_type=ClientStream,
            parser_type=RequestParser,
            jobs=self.idle.jobs,
            epoll_fd=self.idle.fileno(),
            keepalive_s=60.0,
            staying_max=staying_max,
            tail_parts=HEADS.hit_tail_parts,
            buckets=(LATENCY.shift, LATENCY.size),
            clients=(lambda *client: self.clients.append(client), self.clients, 2, 4),
            access_log=log,
        )
        self.loop.attach(self.server)
        self.loop.learn_block(KEPT, False, b"", (b"HTTP/1.1", b' "-" "a"'))
        self.loop.learn_block(CLOSING, True, b"Connection: close\r\n", (b"HTTP/1.1", b' "-" "-"'))
        self._sockets: list[socket.socket] = []

    def _tell(self) -> None:
        self.told += 1

    def learn(self, target: bytes = b"/x", body: bytes = b"0123456789", **changes: object) -> LearnedReply:
        self.mapping[BODY_AT : BODY_AT + len(body)] = body
        self.set_word(SEQUENCE_AT, SEQUENCE)
        self.set_word(SEQUENCE_AT + VALID_UNTIL_AT, monotonic_ns() + HOUR_NS)
        reply = LearnedReply(
            head=b"HTTP/1.1 200 OK\r\nETag: 1\r\n",
            end=b"Content-Length: %d\r\n\r\n" % len(body),
            mapping=self.mapping,
            sequence=SEQUENCE,
            sequence_at=SEQUENCE_AT,
            until_at=SEQUENCE_AT + VALID_UNTIL_AT,
            body_at=BODY_AT,
            body_bytes=len(body),
            version=9,
            path=b"",
            device=0,
            inode=0,
            marks=self.marks,
            mark_at=3,
            is_ready=lambda: self.is_ready,
            initial_age_s=5,
            response_time=time() + 1000,  # so that the age is what it was on arrival
            lifetime_s=60,
            counts=self.event.counts,
            log_parts=(b'"GET %s ' % target, b'" 200 %d' % len(body), b"\n"),
        )._replace(**changes)  # type: ignore[arg-type]
        self.loop.learn_reply(target, reply)
        return reply

    def set_word(self, at: int, value: int) -> None:
        self.mapping[at : at + 8] = struct.pack("@Q", value)

    def pair(self) -> tuple[socket.socket, HttpConnection]:
        """A client, and its connection."""
        client, ours = socket.socketpair()
        self._sockets += [client, ours]
        client.settimeout(WATCHDOG_S)
        stream = ClientStream(ours.fileno(), RateLimit(1, 1))
        return client, HttpConnection(stream, self.server, head_bytes_max=8192)  # type: ignore[arg-type]

    def close(self) -> None:
        for one in self._sockets:
            one.close()
        self.idle.jobs.clear()
        self.idle.close()


def expected(body: bytes = b"0123456789", line: bytes = b"") -> bytes:
    tail = b"Age: 5\r\nCache-Status: test; hit; ttl=55\r\nVia: 1.1 test\r\n"
    return b"HTTP/1.1 200 OK\r\nETag: 1\r\n" + tail + line + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def rig() -> Iterator[Rig]:
    living = Rig()
    yield living
    living.close()


def received(client: socket.socket, count: int) -> bytes:
    return client.recv(count, socket.MSG_WAITALL)


def test_a_known_request_is_answered_and_counted(rig: Rig) -> None:
    rig.learn()
    client, connection = rig.pair()
    client.sendall(b"GET /x" + KEPT)
    assert rig.loop.serve(connection, b"") == (connection, None)
    assert received(client, len(expected())) == expected()
    assert (connection.served, connection.stream.sent_bytes) == (1, len(expected()))
    counts = rig.event.counts
    assert counts[:2] == [1, len(expected())]
    assert counts[3 + LATENCY.index_of(counts[2])] == 1
    assert sum(counts[3:]) == 1
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (connection, None), "as if it had just been received"
    assert counts[0] == connection.served == 2
    assert rig.marks == b"\0\0\0\1\0\0\0\0", "the cache sees that it is used"
    rig.counts.flush()
    assert rig.counts.totals()["hit"] == 2


def test_a_client_is_recognised_whatever_it_asks_for(rig: Rig) -> None:
    rig.learn(b"/x")
    rig.learn(b"/y")
    client, connection = rig.pair()
    for target in (b"/x", b"/y"):
        assert rig.loop.serve(connection, b"GET " + target + CLOSING) == (connection, True)
        said = expected(line=b"Connection: close\r\n")
        assert received(client, len(said)) == said


@pytest.mark.parametrize(
    "data",
    [
        b"GET /y" + KEPT,
        b"HEAD /x" + KEPT,
        b"GET /x" + KEPT + b"GET /x" + KEPT,
        b"GET /x" + KEPT[:-2],
        b"GET /x" + KEPT.replace(b"1.1", b"1.0"),
        b"GET  /x" + KEPT,
        b"G",
        b"getfile GET /x\r\n\r\n",
        b"GET /" + b"x" * 4000 + KEPT,
    ],
)
def test_what_is_not_known_is_returned(rig: Rig, data: bytes) -> None:
    rig.learn()
    client, connection = rig.pair()
    client.sendall(data)
    assert rig.loop.serve(connection, b"") == (connection, data)
    assert rig.event.counts[0] == connection.served == 0


@pytest.mark.parametrize("change", ["sequence", "time", "cache", "closed", "age", "forgotten"])
def test_a_reply_that_does_not_hold_is_not_sent(rig: Rig, change: str) -> None:
    if change == "age":
        rig.learn(response_time=time() - 100)
    else:
        rig.learn()
    if change == "sequence":
        rig.set_word(SEQUENCE_AT, SEQUENCE + 2)
    elif change == "time":
        rig.set_word(SEQUENCE_AT + VALID_UNTIL_AT, monotonic_ns())
    elif change == "cache":
        rig.is_ready = False
    elif change == "closed":
        rig.mapping.close()
    elif change == "forgotten":
        rig.loop.forget()
    _, connection = rig.pair()
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (connection, b"GET /x" + KEPT)


@pytest.mark.parametrize(
    ("arrival_s", "age_s"), [(-30, 35), (-0.5, 5), (-1.5, 6), (1000, 5), (-54.5, 59)], ids=lambda value: str(value)
)
def test_the_age_is_that_of_the_moment(rig: Rig, arrival_s: float, age_s: int) -> None:
    rig.learn(response_time=time() + arrival_s)
    client, connection = rig.pair()
    rig.loop.serve(connection, b"GET /x" + KEPT)
    head = client.recv(4096)
    assert b"Age: %d\r\n" % age_s in head
    assert b"ttl=%d\r\n" % (60 - age_s) in head


def test_the_end_and_errors_are_told(rig: Rig) -> None:
    rig.learn()
    client, connection = rig.pair()
    client.close()
    assert rig.loop.serve(connection, b"") == (connection, b"")
    _, told = rig.loop.serve(connection, b"GET /x" + KEPT)
    assert isinstance(told, tuple)
    assert told == (b"GET /x" + KEPT, expected(), told[2], -1, 9)
    assert told[2] < 0
    assert rig.event.counts[0] == 0


def test_an_exception_ends_the_connection_that_it_came_by(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's may be idle by then."""
    rig.learn()
    rig.learn(b"/y", is_ready=lambda: 1 // 0)
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    _, connection = rig.pair()
    client, other = rig.pair()
    client.sendall(b"GET /y" + KEPT)
    rig.idle.put(other, 60)
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (other, -errno.EIO)
    assert list(rig.idle.jobs.values()) == [connection]
    assert reported == [ZeroDivisionError]


def test_a_part_that_was_sent_is_told(rig: Rig) -> None:
    body = bytes(range(256)) * 64
    rig.learn(body=body)
    client, connection = rig.pair()
    told: object = None
    while not isinstance(told, tuple):
        _, told = rig.loop.serve(connection, b"GET /x" + KEPT)
    data, reply, sent, file_fd, version = told
    assert (data, reply, file_fd, version) == (b"GET /x" + KEPT, expected(body), -1, 9)
    assert 0 <= sent < len(reply)
    assert connection.stream.sent_bytes == connection.served * len(reply) + sent
    client.close()


def test_others_that_are_ready_come_first(rig: Rig) -> None:
    rig.learn()
    first, connection = rig.pair()
    others = [rig.pair() for _ in range(3)]
    for client, other in others:
        client.sendall(b"GET /x" + KEPT)
        rig.idle.put(other, 60)
    assert rig.loop.serve(connection, b"GET /x" + KEPT)[1] is None
    for client in (first, *(client for client, _ in others)):
        assert received(client, len(expected())) == expected()
    assert rig.idle.count == 3, "all but the last one idle again"
    first.sendall(b"GET /y" + KEPT)
    assert select.select([rig.idle.fileno()], [], [], WATCHDOG_S)[0]
    assert rig.idle.take() is connection


@pytest.mark.parametrize("kind", ["in a head", "of another server", "another job"])
def test_one_that_is_not_for_the_loop_is_returned(rig: Rig, kind: str) -> None:
    rig.learn()
    _, connection = rig.pair()
    client, other = rig.pair()
    job: IdleJob = other
    if kind == "in a head":
        other.feed(b"GET /x HT")
    elif kind == "of another server":
        job = HttpConnection(other.stream, object(), head_bytes_max=8192)  # type: ignore[arg-type]
    else:
        job = cast("IdleJob", _Other(other.fd))
    client.sendall(b"GET /x" + KEPT)
    rig.idle.put(job, 60)
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (job, False)
    assert list(rig.idle.jobs.values()) == [connection]


class _Other:
    """Any other job."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.expires = 0.0
        self.is_watched = False


def test_a_worker_stays_a_moment_for_the_next_request() -> None:
    rig = Rig(staying_max=1)
    rig.learn()
    client, connection = rig.pair()
    sender = socket.fromfd(connection.fd, socket.AF_UNIX, socket.SOCK_STREAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(WATCHDOG_S), 0))
    told: list[object] = []
    worker = threading.Thread(target=lambda: told.append(rig.loop.serve(connection, b"GET /x" + KEPT)[1]))
    worker.start()
    for _ in range(3):
        assert received(client, len(expected())) == expected()
        client.sendall(b"GET /x" + KEPT)
    client.shutdown(socket.SHUT_WR)
    worker.join(WATCHDOG_S)
    assert told == [b""]
    assert rig.event.counts[0] == 4
    sender.close()
    rig.close()


@pytest.mark.parametrize("form", list(LogFormat))
def test_the_line_is_that_of_python(form: LogFormat) -> None:
    rig = Rig(form)
    record = RequestRecord(b"GET", b"/x", b"HTTP/1.1", None, origin="http://o")
    record.status, record.cache, record.outcome = 200, CacheResult.HIT, "hit"
    target, version, reply, fields, end = fixed_parts(form, record, 10)
    rig.loop.learn_block(KEPT, False, b"", (version, fields))
    rig.learn(log_parts=(target, reply, end))
    _, connection = rig.pair()
    connection.client = b"192.0.2.7"
    for _ in range(100):
        rig.loop.serve(connection, b"GET /x" + KEPT)
    rig.lines.append(rig.loop.take_lines())
    assert rig.loop.take_lines() == b""
    assert all(len(lines) < select.PIPE_BUF for lines in rig.lines)
    assert rig.told == len(rig.lines), "once for each batch"
    lines = b"".join(rig.lines).splitlines(keepends=True)
    assert len(lines) == 100
    fixed = b"".join((target, version, reply, fields, end))
    assert all(fixed in line and b"192.0.2.7" in line for line in lines)
    rig.close()


def test_new_connections_that_close(rig: Rig) -> None:
    rig.learn()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        assert rig.loop.accept(listener.fileno()) is None
        clients = []
        for _ in range(8):
            client = socket.create_connection(address, timeout=WATCHDOG_S)
            client.sendall(b"GET /x" + CLOSING)
            clients.append(client)
        wait_until(lambda: rig.loop.accept(listener.fileno()) is None and rig.event.counts[0] == 8)
        said = expected(line=b"Connection: close\r\n")
        for client in clients:
            assert received(client, len(said) + 1) == said
            client.close()
        assert rig.clients == [(b"127.0.0.1", len(said), share) for share in (1, 1, 4)], "of many one in four"
        with socket.create_connection(address, timeout=WATCHDOG_S) as client:
            client.sendall(b"GET /x" + KEPT)
            select.select([listener], [], [], WATCHDOG_S)
            found = rig.loop.accept(listener.fileno())
            assert found is not None
            socket.close(found[0])
            assert found[1] in (b"GET /x" + KEPT, None)


def test_the_memory_of_what_is_known_is_bounded(rig: Rig) -> None:
    """What is in use survives however much else is learned."""
    reply = rig.learn(b"/used")
    _, connection = rig.pair()
    for number in range(40_000):
        rig.loop.learn_reply(b"/%d" % number, reply)
        if number % 1000 == 0:
            _, told = rig.loop.serve(connection, b"GET /used" + CLOSING)
            assert told is True or isinstance(told, tuple), "the client does not read"
    assert rig.loop.serve(connection, b"GET /0" + CLOSING)[1] == b"GET /0" + CLOSING


@pytest.mark.parametrize(
    "change", [{"sequence_at": 3}, {"body_at": MAPPED_BYTES}, {"until_at": -8}, {"mark_at": 8}, {"counts": [0]}]
)
def test_a_reply_outside_of_its_table_is_refused(rig: Rig, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not within"):
        rig.learn(**change)


def learn_file(rig: Rig, path: Path, body: bytes, **changes: object) -> None:
    path.write_bytes(body)
    status = path.stat()
    facts = {"path": os.fsencode(path), "device": status.st_dev, "inode": status.st_ino, "body_bytes": len(body)}
    end = b"Content-Length: %d\r\n\r\n" % len(body)
    rig.learn(**{**facts, "body_at": BODY_AT, "end": end, **changes})


@pytest.mark.parametrize("size_bytes", [1, 16_384, 16_385, 60_000])
@pytest.mark.parametrize("rest", [KEPT, CLOSING])
def test_a_body_in_a_file_is_sent_from_there(rig: Rig, tmp_path: Path, size_bytes: int, rest: bytes) -> None:
    body = bytes(range(251)) * 240
    learn_file(rig, tmp_path / "body", body[:size_bytes])
    client, connection = rig.pair()
    before = len(os.listdir("/proc/self/fd"))
    outcome = rig.loop.serve(connection, b"GET /x" + rest)
    assert outcome == (connection, True if rest is CLOSING else None)
    said = expected(body[:size_bytes], b"Connection: close\r\n" if rest is CLOSING else b"")
    assert received(client, len(said)) == said
    assert rig.event.counts[:2] == [1, len(said)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert connection.stream.never_waits is (size_bytes > 16_384)


def test_a_small_body_that_is_not_in_memory_is_read_from_the_disk(rig: Rig, tmp_path: Path) -> None:
    """Where the file system can be told to forget it; it is the same reply in any case."""
    path, body = tmp_path / "body", os.urandom(16_000)
    learn_file(rig, path, body)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    client, connection = rig.pair()
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (connection, None)
    assert received(client, len(expected(body))) == expected(body)


@pytest.mark.parametrize("change", ["inode", "size", "gone", "link"])
@pytest.mark.parametrize("size_bytes", [10, 60_000])
def test_another_file_is_not_sent(rig: Rig, tmp_path: Path, change: str, size_bytes: int) -> None:
    path = tmp_path / "body"
    learn_file(rig, path, b"x" * size_bytes)
    if change == "size":
        path.write_bytes(b"x" * (size_bytes + 1))
    else:
        path.rename(tmp_path / "old")
        if change == "inode":
            path.write_bytes(b"y" * size_bytes)
        elif change == "link":
            path.symlink_to(tmp_path / "old")
    _, connection = rig.pair()
    before = len(os.listdir("/proc/self/fd"))
    assert rig.loop.serve(connection, b"GET /x" + KEPT) == (connection, b"GET /x" + KEPT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_rest_of_a_file_is_handed_over(rig: Rig, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096
    learn_file(rig, tmp_path / "body", body)
    _, connection = rig.pair()
    _, told = rig.loop.serve(connection, b"GET /x" + KEPT)
    assert isinstance(told, tuple)
    data, head, sent, file_fd, version = told
    assert (data, head, version) == (b"GET /x" + KEPT, expected(body).removesuffix(body), 9)
    assert len(head) < sent < len(head) + len(body)
    assert connection.stream.sent_bytes == sent
    assert os.pread(file_fd, len(body) + 1, 0) == body
    os.close(file_fd)
