"""A pair of daemons of which one fails, and what must hold all the same: no wrong byte, nothing left, service back."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import names
from tests.support.client import connect
from tests.support.daemons import DaemonProcess
from tests.support.waiting import wait_until
from webproxy.getfile import ReplyParser, Status, request_bytes

SMALL, LARGE = "/small", "/large"
SEGMENTS = 8
SEGMENT_BYTES = 8192
POOL_FLAGS = ("-n", str(SEGMENTS), "-z", str(SEGMENT_BYTES), "--segments-per-transfer-max", "4", "-t", "4")
"""A large body goes through leases of four segments, in chunks of less than 8 KiB."""


def _bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # a chunk in the wrong place differs


CONTENT = {SMALL: _bytes(1, 5_000), LARGE: _bytes(2, 6_000_000)}


def write_content(directory: Path) -> Path:
    """A directory that a cache can serve."""
    directory.mkdir()
    for path, body in CONTENT.items():
        (directory / path[1:]).write_bytes(body)
    return directory


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything a client got before the connection ended; `status` is None when not even a header came."""

    status: Status | None
    declared: int
    body: bytes
    was_reset: bool = False

    def is_whole(self, content: bytes) -> bool:
        """Whether it is the whole object."""
        return self.status is Status.OK and self.body == content and self.declared == len(content)

    def assert_honest(self, content: bytes, *, server_died: bool = False) -> None:
        """The whole object, a clean refusal, or a short body: never a wrong byte, and silence only from the dead."""
        if self.status is None:
            assert server_died, "a living proxy closed without an answer"
        elif self.status is Status.OK:
            assert self.declared == len(content)
            assert content.startswith(self.body), "wrong bytes"
            assert not self.was_reset or server_died, "a living proxy reset the connection"
        else:
            assert self.status is Status.ERROR, self
            assert self.body == b""


NO_REPLY = Reply(None, 0, b"", was_reset=True)


def ask(port: int, path: str) -> Reply:
    """Ask for a path; a server that dies is no error here."""
    try:
        client = connect(port)
    except OSError:
        return NO_REPLY
    with client:
        return _converse(client, path)


def _converse(client: socket.socket, path: str) -> Reply:
    parser, reply = ReplyParser(), None
    pieces: list[bytes] = []
    was_reset = False
    try:
        client.sendall(request_bytes(path.encode()))
        while data := client.recv(1 << 16):
            if reply is None:
                reply = parser.receive_data(data)
            else:
                pieces.append(data)
    except (ConnectionResetError, BrokenPipeError):
        was_reset = True
    if reply is None:
        return Reply(None, 0, b"", was_reset)
    return Reply(reply.status, reply.length, parser.rest + b"".join(pieces), was_reset)


def leave_early(port: int, path: str, *, reset: bool) -> None:
    """Ask for a path, take the header and some of the body, and vanish."""
    with connect(port, receive_buffer_bytes=4096) as client:
        client.sendall(request_bytes(path.encode()))
        assert client.recv(4096).startswith(b"GETFILE OK ")
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def asking(port: int, path: str) -> Iterator[Future[Reply]]:
    """A request under way in a thread of its own, which ends with the block."""
    with ThreadPoolExecutor(1) as crew:
        yield crew.submit(ask, port, path)


def assert_serves(port: int, path: str, *, rounds: int = 2) -> None:
    """As many requests as the pool has segments, `rounds` times, several at once: all whole."""
    wait_until(lambda: ask(port, path).is_whole(CONTENT[path]), what="the service is back")
    with ThreadPoolExecutor(4) as crew:
        replies = list(crew.map(lambda _: ask(port, path), range(SEGMENTS * rounds)))
    bad = [(reply.status, len(reply.body)) for reply in replies if not reply.is_whole(CONTENT[path])]
    assert not bad, f"{len(bad)} of {len(replies)} replies not whole: {bad}"


def pool_of(proxy: DaemonProcess) -> str:
    """The name of a proxy's pool."""
    return str(proxy.wait_event("listening")["pool"])


def segments_of(proxy: DaemonProcess) -> list[str]:
    """The names of a proxy's segments in shared memory."""
    return [found.name for found in names.names_of({proxy.pid}) if found.kind == "segment"]


def maps(process: DaemonProcess, pool: str) -> bool:
    """Whether a process still maps a segment of this pool."""
    with open(f"/proc/{process.pid}/maps", encoding="utf-8", errors="replace") as lines:
        return any(f"/dev/shm/{pool}-" in line for line in lines)


def assert_forgets(cache: DaemonProcess, pool: str) -> None:
    """The cache unmaps what a dead proxy left."""
    wait_until(lambda: not maps(cache, pool), what=f"the cache has unmapped {pool}")


def assert_ends_well(*daemons: DaemonProcess) -> None:
    """Each stops cleanly in its turn, with every segment back in its pool and no thread that failed on the way."""
    for daemon in daemons:
        assert daemon.stop() == 0, daemon.log_text()
        failures = [event for event in daemon.events() if "exception" in event]
        assert not failures, daemon.log_text()
        stopped = daemon.events("stopped")[-1]
        assert stopped["unfinished"] == 0
        assert stopped.get("leased", 0) == 0, stopped
        assert names.names_of({daemon.pid}) == []


def ask_until_dead(daemon: DaemonProcess, ask_once: Callable[[], Reply], content: bytes, tries: int = 20) -> Reply:
    """Ask until the daemon, which has a fault armed, is dead; every reply on the way is honest. Returns the last."""
    for _ in range(tries):
        reply = ask_once()
        reply.assert_honest(content, server_died=daemon.program == "webproxy")
        if not daemon.running:
            return reply
        if not reply.is_whole(content):  # it is dying: the kernel closes its sockets before its parent can see it
            daemon.wait_exit()
            return reply
    raise AssertionError(f"{tries} requests, and {daemon.program} did not come to its kill point")
