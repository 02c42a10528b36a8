"""A steady load: so many requests a second over new and kept connections, and downloads that run all the time.

Every byte is checked. A failure says on which connection it was (the client's port), and since when that was open, so
that it can be told in which process the connection was. What HTTP lets a client send again is no failure: a pipelined
request behind an answer that said that the connection ends (RFC 9112 section 9.3.2).
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import repeat

from scripts.stress.origin import content
from webproxy.getfile import RemoteProtocolError, ReplyParser, request_bytes

STORED = ("/small?0", "/small?1", "/small?2", "/middle?0", "/hit?0")
DOWNLOAD = "/twenty?0"
DOWNLOAD_S = 10.0
"""So long a download takes, at an even pace."""
_HANG_S = 30.0
_BLOCK_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 18
_PIPELINED = 2
_NEW_SHARE, _GETFILE_SHARE = 0.4, 0.2  # the rest comes over kept connections
_THREAD_REQUESTS_PER_S = 10.0
_UNCACHED_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What must not be: on which connection, since when that was open, and when it was noticed."""

    kind: str
    target: str
    reason: str
    port: int
    """Of the client; 0: no connection came about."""
    began_s: float
    ended_s: float

    @property
    def as_text(self) -> str:
        """For a reader."""
        return f"{self.kind} {self.target}: {self.reason} (client port {self.port})"


class _Failed(Exception):
    """What became of a request that should have succeeded."""


class Connection:
    """One connection to the proxy; blocking, each call for at most 30 s. A context manager."""

    def __init__(self, port: int) -> None:
        """Raises OSError."""
        self.began_s = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_HANG_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self.port = int(self._socket.getsockname()[1])
        self._received = bytearray()

    def ask(self, targets: Sequence[str]) -> None:
        """Send requests, all at once. Raises OSError."""
        heads = (f"GET {target} HTTP/1.1\r\nHost: steady.example\r\n\r\n" for target in targets)
        self._socket.sendall("".join(heads).encode())

    def ask_getfile(self, target: str) -> None:
        """Send a request of getfile. Raises OSError."""
        self._socket.sendall(request_bytes(target.encode()))

    def answer(self, target: str, bytes_per_s: float = 0.0) -> bool:
        """Take an answer, at that pace; returns whether the connection stays. Raises OSError, _Failed."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive("closed without an answer" if not self._received else "cut in the head")
        head = bytes(self._received[:end]).decode("latin-1").lower().split("\r\n")
        del self._received[: end + 4]
        if head[0].split()[1:2] != ["200"]:
            raise _Failed(f"status line {head[0]!r}")
        fields = dict(line.split(": ", 1) for line in head[1:])
        self._body(target, int(fields.get("content-length", -1)), bytes_per_s)
        return fields.get("connection") != "close"

    def answer_getfile(self, target: str, bytes_per_s: float = 0.0) -> None:
        """As answer()."""
        parser, reply = ReplyParser(), None
        while reply is None:
            self._receive("closed without an answer")
            try:
                reply = parser.receive_data(bytes(self._received))
            except RemoteProtocolError as error:
                raise _Failed(repr(error)) from error
            self._received.clear()
        if reply.status != "OK":
            raise _Failed(f"status {reply.status}")
        self._received += parser.rest
        self._body(target, reply.length or 0, bytes_per_s)

    def _body(self, target: str, length: int, bytes_per_s: float) -> None:
        wanted = memoryview(content(target))
        if length != len(wanted):
            raise _Failed(f"{length} bytes were announced instead of {len(wanted)}")
        place, began_s = 0, time.monotonic()
        while place < length:
            if not self._received:
                self._receive(f"cut after {place} of {length} bytes")
            part = self._received[: length - place]
            del self._received[: len(part)]
            if part != wanted[place : place + len(part)]:
                raise _Failed(f"WRONG BYTES after {place}")
            place += len(part)
            if bytes_per_s:
                time.sleep(max(0.0, began_s + place / bytes_per_s - time.monotonic()))

    def _receive(self, otherwise: str) -> None:
        try:
            data = self._socket.recv(_BLOCK_BYTES)
        except OSError as error:
            raise _Failed(f"{otherwise}: {error or type(error).__name__}") from error
        if not data:
            raise _Failed(otherwise)
        self._received += data

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class Seen:
    """What the clients have seen; shared by their threads under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    whole: Counter[str] = field(default_factory=Counter)
    """Complete answers by kind."""
    failures: list[Failure] = field(default_factory=list)
    resent: int = 0
    """Pipelined requests that were sent again."""
    reopened: int = 0
    """Kept connections that ended as an answer had said."""
    slowest_s: float = 0.0
    """Of all but downloads."""
    downloads: int = 0
    """That run now."""
    requests_per_s: float = 0.0
    """Answered until the end of the load began."""

    def note(self, kind: str, took_s: float) -> None:
        """A request is answered, and every byte was right."""
        with self.lock:
            self.whole[kind] += 1
            self.slowest_s = max(self.slowest_s, took_s)

    @property
    def requests(self) -> int:
        """How many were answered, downloads included."""
        return self.whole.total()


class _Client(threading.Thread):
    """Performs one step after the other until the end; with an interval, at that pace."""

    def __init__(self, load: SteadyLoad, step: Callable[[random.Random], None], number: int, interval_s: float) -> None:
        super().__init__(name=f"steady-{number}", daemon=True)
        self._load = load
        self._step = step
        self._choice = random.Random(number)
        self._interval_s = interval_s

    def run(self) -> None:
        ending = self._load.ending
        due_s = time.monotonic() + self._choice.random() * self._interval_s
        while not ending.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + self._interval_s, time.monotonic() - 1.0)  # behind by more than that is forgotten
            self._step(self._choice)


class _Kept:
    """One client's kept connection, over which it sends two requests at once."""

    def __init__(self, load: SteadyLoad) -> None:
        self._load = load
        self._connection: Connection | None = None

    def step(self, choice: random.Random) -> None:
        targets = [self._load.target(choice) for _ in range(_PIPELINED)]
        while targets:
            targets = self._ask(targets)

    def _ask(self, targets: list[str]) -> list[str]:
        """Returns those that are to be sent again, over another connection."""
        load, began_s, answered = self._load, time.monotonic(), 0
        try:
            connection = self._connection = self._connection or Connection(load.port)
            connection.ask(targets)
            for target in targets:
                stays = connection.answer(target)
                answered += 1
                load.seen.note("kept connection", time.monotonic() - began_s)
                if not stays:
                    break
        except (OSError, _Failed) as error:
            load.failed("kept connection", targets[answered], error, self._connection)
            self.close()
            return []
        if stays:
            return []
        self.close()
        with load.seen.lock:
            load.seen.reopened += 1
            load.seen.resent += len(targets) - answered
        return targets[answered:]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class SteadyLoad:
    """`running_load()` runs it. `requests_per_s` is the pace of all clients but the downloads together."""

    def __init__(self, port: int, *, requests_per_s: float, downloads: int) -> None:
        self.port = port
        self.seen = Seen()
        self.ending = threading.Event()
        kept_share = 1 - _NEW_SHARE - _GETFILE_SHARE
        self._kept = [_Kept(self) for _ in _threads(requests_per_s * kept_share / _PIPELINED)]
        steps: list[tuple[Callable[[random.Random], None], float]] = [
            *((kept.step, _interval_s(requests_per_s * kept_share / _PIPELINED)) for kept in self._kept),
            *_paced(self._new_connection, requests_per_s * _NEW_SHARE),
            *_paced(self._getfile, requests_per_s * _GETFILE_SHARE),
            *repeat((self._download, 0.0), downloads),
        ]
        self._clients = [_Client(self, step, number, interval_s) for number, (step, interval_s) in enumerate(steps)]
        self._wanted_downloads = downloads
        self._began_s = time.monotonic()

    def start(self) -> None:
        """Start it; returns once all downloads run."""
        self._began_s = time.monotonic()
        for client in self._clients:
            client.start()
        while self.seen.downloads < self._wanted_downloads:
            time.sleep(0.01)

    def end(self) -> None:
        """End it, and wait for the answers that are still to come."""
        self.seen.requests_per_s = self.seen.requests / max(0.001, time.monotonic() - self._began_s)
        self.ending.set()
        for client in self._clients:
            if client.ident is not None:
                client.join()
        for kept in self._kept:
            kept.close()

    def target(self, choice: random.Random) -> str:
        """What the next request asks for."""
        if choice.random() < _UNCACHED_SHARE:
            return f"/uncached?{choice.randrange(1 << 30)}"
        return choice.choice(STORED)

    def failed(self, kind: str, target: str, error: Exception, connection: Connection | None) -> None:
        """Note what must not be."""
        now_s = time.monotonic()
        reason = str(error) if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"
        port, began_s = (0, now_s) if connection is None else (connection.port, connection.began_s)
        failure = Failure(kind=kind, target=target, reason=reason, port=port, began_s=began_s, ended_s=now_s)
        with self.seen.lock:
            self.seen.failures.append(failure)

    def _new_connection(self, choice: random.Random) -> None:
        self._once("new connection", self.target(choice))

    def _getfile(self, choice: random.Random) -> None:
        self._once("getfile", self.target(choice), getfile=True)

    def _download(self, choice: random.Random) -> None:
        with self.seen.lock:
            self.seen.downloads += 1
        pace = len(content(DOWNLOAD)) / (DOWNLOAD_S * choice.uniform(0.5, 1.0))
        self._once("download", DOWNLOAD, getfile=choice.random() < 0.5, bytes_per_s=pace)
        with self.seen.lock:
            self.seen.downloads -= 1

    def _once(self, kind: str, target: str, *, getfile: bool = False, bytes_per_s: float = 0.0) -> None:
        began_s, connection = time.monotonic(), None
        try:
            with Connection(self.port) as connection:
                if getfile:
                    connection.ask_getfile(target)
                    connection.answer_getfile(target, bytes_per_s)
                else:
                    connection.ask([target])
                    connection.answer(target, bytes_per_s)
        except (OSError, _Failed) as error:
            self.failed(kind, target, error, connection)
            return
        self.seen.note(kind, 0.0 if bytes_per_s else time.monotonic() - began_s)


def _threads(requests_per_s: float) -> range:
    return range(max(1, round(requests_per_s / _THREAD_REQUESTS_PER_S)))


def _interval_s(requests_per_s: float) -> float:
    return len(_threads(requests_per_s)) / requests_per_s


def _paced(
    step: Callable[[random.Random], None], requests_per_s: float
) -> Iterator[tuple[Callable[[random.Random], None], float]]:
    return repeat((step, _interval_s(requests_per_s)), len(_threads(requests_per_s)))


@contextmanager
def running_load(port: int, *, requests_per_s: float, downloads: int) -> Iterator[SteadyLoad]:
    """Run a load for the time of the block; all its answers have come, or failed, behind it."""
    for target in (*STORED, DOWNLOAD):
        for _ in range(2):
            with suppress(OSError, _Failed), Connection(port) as connection:
                connection.ask([target])
                connection.answer(target)
    load = SteadyLoad(port, requests_per_s=requests_per_s, downloads=downloads)
    try:
        load.start()
        yield load
    finally:
        load.end()
