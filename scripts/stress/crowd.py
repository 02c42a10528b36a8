"""A helper: many slow parties in one thread. Opens them, keeps them as they are, and says what became of them.

A party sends one request. Then it waits for the answer, stops reading before it has begun, sends a byte now and then,
reads a little now and then, or leaves at once.
"""

import asyncio
import random
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scripts.stress.helper import Answer, answer_lines
from scripts.stress.hits import percentile

_OPENING_S = 10.0
_SIP_BYTES = 1024
_SIP_INTERVAL_S = 0.5
_SMALL_BUFFER_BYTES = 4096


class Then(StrEnum):
    """What a party does after its request."""

    WAIT = "wait"
    STOP = "stop"
    DRIP = "drip"
    SIP = "sip"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """Parties of one kind. In `request` `{n}` is the number of the party."""

    request: str
    then: Then
    drip: str = "x"
    """What a party that drips sends as one byte."""
    drip_interval_s: float = 3.0
    arrivals_per_s: float | None = None
    """How many come in a second; None: all at once."""


class Crowd:
    """The parties of one command."""

    def __init__(self, port: int, count: int, parties: Parties) -> None:
        self._port = port
        self._count = count
        self._parties = parties
        self._asked = 0
        self._failures: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._refused_ms: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_asked = asyncio.Event()

    async def open(self) -> None:
        """Let all come; returns when they have asked, or after `_OPENING_S`; with a rate of arrivals at once."""
        rate = self._parties.arrivals_per_s
        for number in range(self._count):
            task = asyncio.create_task(self._party(number, number / rate if rate else 0.0))
            self._tasks.add(task)
        if rate is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_asked.wait(), _OPENING_S)

    def report(self) -> Answer:
        """What became of them so far."""
        return {
            "asked": self._asked,
            "failures": dict(self._failures),
            "answers": dict(self._answers),
            "refused": len(self._refused_ms),
            "refused_p95_ms": percentile(self._refused_ms, 0.95),
        }

    async def close(self) -> None:
        """Let all go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _party(self, number: int, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        loop = asyncio.get_running_loop()
        with socket.socket() as party:
            party.setblocking(False)
            if self._parties.then in (Then.STOP, Then.SIP):
                party.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
            try:
                await loop.sock_connect(party, ("127.0.0.1", self._port))
                await loop.sock_sendall(party, self._parties.request.replace("{n}", str(number)).encode())
            except OSError as error:
                self._failures[type(error).__name__] += 1
                self._note_asked()
                return
            self._note_asked()
            with suppress(OSError):
                await self._go_on(loop, party, time.monotonic())

    def _note_asked(self) -> None:
        self._asked += 1
        if self._asked == self._count:
            self._all_asked.set()

    async def _go_on(self, loop: asyncio.AbstractEventLoop, party: socket.socket, asked_at: float) -> None:
        match self._parties.then:
            case Then.LEAVE:
                return
            case Then.STOP:
                await asyncio.Event().wait()
            case Then.WAIT:
                await self._read(loop, party, asked_at, 0.0)
            case Then.SIP:
                await self._read(loop, party, asked_at, _SIP_INTERVAL_S)
            case Then.DRIP:
                dripping = asyncio.create_task(self._drip(loop, party))
                try:
                    await self._read(loop, party, asked_at, 0.0)
                finally:
                    dripping.cancel()

    async def _read(
        self, loop: asyncio.AbstractEventLoop, party: socket.socket, asked_at: float, rest_s: float
    ) -> None:
        """Read to the end, `_SIP_BYTES` at a time; the status is counted when it comes."""
        first = await loop.sock_recv(party, _SIP_BYTES)
        status = _status_of(first)
        self._answers[status] += 1
        if status in ("503", "ERROR"):
            self._refused_ms.append((time.monotonic() - asked_at) * 1000)
        while await loop.sock_recv(party, _SIP_BYTES):
            await asyncio.sleep(rest_s)

    async def _drip(self, loop: asyncio.AbstractEventLoop, party: socket.socket) -> None:
        interval_s = self._parties.drip_interval_s
        await asyncio.sleep(random.uniform(0, interval_s))  # they do not send in step
        with suppress(OSError):
            while True:
                await loop.sock_sendall(party, self._parties.drip.encode())
                await asyncio.sleep(interval_s)


def _status_of(head: bytes) -> str:
    """The status of an answer over either protocol; `closed` without one."""
    words = head.split(maxsplit=2)
    return words[1].decode("latin-1") if len(words) > 1 else "closed"


async def _main() -> None:
    crowd: Crowd | None = None

    async def handle(command: dict[str, Any]) -> Answer:
        nonlocal crowd
        match command.pop("do"):
            case "open":
                parties = Parties(**command.pop("parties"))
                crowd = Crowd(parties=parties, **command)
                await crowd.open()
            case "close" if crowd is not None:
                await crowd.close()
        return {} if crowd is None else crowd.report()

    await answer_lines(handle)
    if crowd is not None:
        await crowd.close()


if __name__ == "__main__":
    asyncio.run(_main())
