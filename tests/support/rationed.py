"""Clients that take what a test lets them take: what the proxy sends is rationed, byte for byte.

A real slow client cannot be made to stop at a given byte: what the kernel accepts depends on its buffers.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Iterator

import pytest

from webproxy.serving.parking import ParkingLot
from webproxy.transport import sockets
from webproxy.transport.job import AnyOf, Event, Outcome, WaitsFor


class Ration:
    """How much is accepted until the sender waits for room, each time; without any left, everything is."""

    def __init__(self) -> None:
        self._rooms: Iterator[float] = iter(())
        self._room = math.inf
        self.pauses = 0

    def begin(self, rooms: Iterable[float]) -> None:
        """From now on the client takes these numbers of bytes, with a pause after each."""
        self._rooms = iter(rooms)
        self.pauses = 0
        self._room = next(self._rooms, math.inf)

    def take(self, count: int) -> int:
        """How many of so many bytes are accepted now."""
        taken = int(min(count, self._room))
        self._room -= taken
        return taken

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is accepted before the sender has waited."""
        return self._room <= 0

    def renew(self) -> None:
        """The sender waits for room: there is some."""
        self.pauses += 1
        self._room = next(self._rooms, math.inf)


def ration(monkeypatch: pytest.MonkeyPatch) -> Ration:
    """Ration what is sent to clients by the proxies of this process."""
    made = Ration()
    some, with_header, sendfile_all = sockets.send, sockets.send_with_header, os.sendfile
    header, memory, chunk = sockets.send_header, sockets.send_memory, sockets.send_chunk
    has_room, settle = sockets.has_room, ParkingLot.settle

    def send(fd: int, data: bytes) -> int:
        taken = made.take(len(data))
        return some(fd, data[:taken]) if taken else 0

    def send_header(fd: int, data: bytes) -> int:
        taken = made.take(len(data))
        return header(fd, data[:taken]) if taken else 0

    def send_memory(fd: int, address: int, count: int, more: bool = False) -> int:
        taken = made.take(count)
        return memory(fd, address, taken, more) if taken else 0

    def send_chunk(fd: int, pointer: object, count: int, more: bool) -> int:
        taken = made.take(count)
        return chunk(fd, pointer, taken, more) if taken else 0

    def send_with_header(fd: int, data: bytes, address: int, count: int) -> int:
        taken = made.take(len(data) + count)
        return with_header(fd, data[:taken], address, max(0, taken - len(data))) if taken else 0

    def sendfile(fd: int, source_fd: int, offset: int, count: int) -> int:
        taken = made.take(count)
        if count and not taken:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return sendfile_all(fd, source_fd, offset, taken)

    def settled(lot: ParkingLot, outcome: Outcome) -> None:
        if isinstance(outcome, WaitsFor) and made.is_used_up:
            event = outcome.event
            if event is Event.WRITABLE or (isinstance(event, AnyOf) and event.is_writable):
                made.renew()
        settle(lot, outcome)

    for function in (send, send_header, send_memory, send_chunk, send_with_header):
        monkeypatch.setattr(sockets, function.__name__, function)
    monkeypatch.setattr(os, "sendfile", sendfile)
    monkeypatch.setattr(sockets, "has_room", lambda fd, wait_ms=0: not made.is_used_up and has_room(fd, wait_ms))
    monkeypatch.setattr(ParkingLot, "settle", settled)
    return made
