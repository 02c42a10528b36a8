"""A client's end of a response without a socket: it takes what the test says."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from tests.support.waiting import WATCHDOG_MS, WATCHDOG_S
from webproxy.errors import ClientGone
from webproxy.exchange.body_transfer import BodySource
from webproxy.store.store import Store
from webproxy.transport.client_rate import RateLimit
from webproxy.transport.client_stream import ClientStream

NO_LIMIT = RateLimit(0, 1.0)


def client_stream(fd: int, limit: RateLimit = NO_LIMIT) -> ClientStream:
    """A client's end of a connection."""
    return ClientStream(fd, limit)


def send_all(stream: ClientStream, data: bytes) -> None:
    """Send everything, waiting for the client."""
    while data:
        data = data[stream.send_some(data) :]
        assert stream.has_room_within(WATCHDOG_MS)


class ScriptedDemand:
    """Whether others wait, as the test says: always, never, or by what it calls; `spare` says whether workers idle."""

    def __init__(self, others_wait: Callable[[], bool] = lambda: False, *, spare: bool = False) -> None:
        self._others_wait = others_wait
        self.spare = spare

    def others_wait(self) -> bool:
        """As Demand.others_wait()."""
        return self._others_wait()

    def has_spare(self) -> bool:
        """As Demand.has_spare()."""
        return self.spare


def source_of(store: Store, others_wait: Callable[[], bool] = lambda: False) -> BodySource:
    """Where bodies come from, with patience for a cache on a busy machine."""
    return BodySource(store, WATCHDOG_S, ScriptedDemand(others_wait))


def address_of(pointer: object) -> int:
    """Where what ctypes.byref() gave points to."""
    address = ctypes.cast(pointer, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


class ScriptedStream(ClientStream):
    """A client that takes what `allowance` says of all bytes together, then nothing, or is gone.

    Whoever waits for it finds that it has room (`is_patient`), or gives up at once.
    """

    def __init__(self, allowance: int = 1 << 30, *, leaves: bool = False, is_patient: bool = False) -> None:
        super().__init__(-1, NO_LIMIT)
        self.allowance = allowance
        self.leaves = leaves
        self.is_patient = is_patient
        self.received = b""
        self.announced: list[bool] = []

    def send_memory(self, address: int, count: int, more: bool = False) -> int:
        """Copy what the client still takes."""
        taken = min(count, self.allowance - len(self.received))
        if not taken and self.leaves:
            raise ClientGone("the script says so")
        self.received += ctypes.string_at(address, taken)
        self.announced.append(more)
        return taken

    def send_chunk(self, pointer: object, count: int, more: bool) -> int:
        """As send_memory()."""
        return self.send_memory(address_of(pointer), count, more)

    def send_with_header(self, header: bytes, address: int, count: int, more: bool) -> int:
        """As send_memory()."""
        sent = self.send_some(header)
        return sent if sent < len(header) else sent + self.send_memory(address, count, more)

    def send_some(self, data: bytes, *, more: bool = False) -> int:
        """Take what the client still takes."""
        taken = min(len(data), self.allowance - len(self.received))
        if not taken and self.leaves:
            raise ClientGone("the script says so")
        self.received += data[:taken]
        return taken

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Take what the client still takes of a file."""
        taken = min(count, self.allowance - len(self.received))
        self.received += os.pread(fd, taken, offset)
        return taken

    def has_room_within(self, wait_ms: int) -> bool:
        """What the test says."""
        return self.is_patient
