"""A helper: requests over HTTP whose every byte and whose time is checked, in open or closed loop.

Open loop: requests are sent at fixed times whatever became of those before, so that a stall of the proxy is seen by all
that come in it. Latency counts from the sending, or from the wait for one of too many connections: a helper that the
machine lets wait is not the proxy's fault. Closed loop: each client asks when it has been answered.
"""

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from scripts.stress.helper import Answer, answer_lines
from scripts.stress.origin import content

_CONNECTIONS_MAX = 256
_PAUSE_AFTER_REFUSAL_S = 0.05
_OK = "ok"
_REFUSED = "503"

_Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Tally:
    """What became of the requests of one path."""

    outcomes: Counter[str] = field(default_factory=Counter)
    times_ms: list[float] = field(default_factory=list)
    """Of all requests; one that got no answer counts with its time limit."""
    refused_ms: list[float] = field(default_factory=list)
    ok_at_s: list[float] = field(default_factory=list)
    """When the whole and exact answers had come."""

    def note(self, outcome: str, seconds: float, at_s: float) -> None:
        """Count one request that ended at this time of the run."""
        self.outcomes[outcome] += 1
        if outcome == _OK:
            self.ok_at_s.append(at_s)
        self.times_ms.append(seconds * 1000)
        if outcome == _REFUSED:
            self.refused_ms.append(seconds * 1000)

    def summary(self) -> Answer:
        """The figures, times in milliseconds; None where there is nothing to measure."""
        return {
            "count": len(self.times_ms),
            "ok": self.outcomes[_OK],
            "outcomes": dict(self.outcomes),
            "p50_ms": percentile(self.times_ms, 0.5),
            "p99_ms": percentile(self.times_ms, 0.99),
            "refused": len(self.refused_ms),
            "refused_p95_ms": percentile(self.refused_ms, 0.95),
        }


def percentile(values: list[float], share: float) -> float | None:
    """The value that this share of them does not exceed; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Asker:
    """Requests to one port on kept connections, at most `_CONNECTIONS_MAX` or `connections` of them at once."""

    def __init__(self, port: int, timeout_s: float, connections: int = _CONNECTIONS_MAX) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(connections)
        self.began = time.monotonic()
        self.tallies: dict[str, Tally] = {}

    async def ask(self, target: str) -> str:
        """Request a target once and count what becomes of it; returns the outcome."""
        asked = time.monotonic()
        try:
            outcome = await asyncio.wait_for(self._ask(target), self._timeout_s)
        except TimeoutError:
            outcome = "no answer"
        except (OSError, EOFError, ValueError) as error:
            outcome = type(error).__name__
        now = time.monotonic()
        self.tallies.setdefault(target.partition("?")[0], Tally()).note(outcome, now - asked, now - self.began)
        return outcome

    async def _ask(self, target: str) -> str:
        async with self._room:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            kept = False
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: stress\r\n\r\n".encode())
                outcome, kept = await _read_answer(reader, target)
            finally:
                if kept:
                    self._idle.append((reader, writer))
                else:
                    writer.transport.abort()
            return outcome

    def close(self) -> None:
        """Close the connections that are kept."""
        for _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()

    def ok_per_s(self, from_s: float, to_s: float) -> float:
        """Good answers a second in a part of the run."""
        return sum(from_s <= at_s < to_s for tally in self.tallies.values() for at_s in tally.ok_at_s) / (to_s - from_s)

    def summaries(self) -> Answer:
        """The figures of each path."""
        return {path: tally.summary() for path, tally in self.tallies.items()}


async def _read_answer(reader: asyncio.StreamReader, target: str) -> tuple[str, bool]:
    """The outcome of one answer, and whether its connection is kept."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = head[0].split(" ")[1]
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    body = await reader.readexactly(int(fields["content-length"])) if "content-length" in fields else b""
    kept = fields.get("connection") != "close" and "content-length" in fields
    if status != "200":
        return status, kept
    return (_OK if body == content(target) else "wrong bytes"), kept


async def open_loop(
    port: int,
    targets: list[str],
    rate: float,
    seconds: float,
    timeout_s: float,
    connections: int = _CONNECTIONS_MAX,
    settle_s: float = 0.0,
) -> Answer:
    """Request the targets in turn, `rate` a second; the figures of each path when the last is answered or given up.

    `ok_per_s` counts the good answers that came between `settle_s` and `seconds`.
    """
    asker = Asker(port, timeout_s, connections)
    running: list[asyncio.Task[str]] = []
    began = asker.began
    for number in range(int(rate * seconds)):
        wait_s = began + number / rate - time.monotonic()
        if wait_s > 0 or number % 64 == 0:
            await asyncio.sleep(max(wait_s, 0))
        running.append(asyncio.create_task(asker.ask(_numbered(targets, number))))
    await asyncio.gather(*running)
    asker.close()
    return {"paths": asker.summaries(), "ok_per_s": asker.ok_per_s(settle_s, seconds)}


async def closed_loop(port: int, targets: list[str], clients: int, seconds: float, timeout_s: float) -> Answer:
    """Let so many clients request the targets in turn; the figures of each path, and good answers a second."""
    asker = Asker(port, timeout_s, clients)
    began = asker.began
    numbers = iter(range(sys.maxsize))

    async def client() -> None:
        while time.monotonic() < began + seconds:
            if await asker.ask(_numbered(targets, next(numbers))) != _OK:
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)

    await asyncio.gather(*(client() for _ in range(clients)))
    asker.close()
    return {"paths": asker.summaries(), "ok_per_s": asker.ok_per_s(0.0, seconds), "seconds": time.monotonic() - began}


def _numbered(targets: list[str], number: int) -> str:
    """The target that is next; `{n}` in it is the number of the request, for an object of its own."""
    return targets[number % len(targets)].replace("{n}", str(number))


async def _main() -> None:
    async def handle(command: Answer) -> Answer:
        if command.pop("loop") == "open":
            return await open_loop(**command)
        return await closed_loop(**command)

    await answer_lines(handle)


if __name__ == "__main__":
    asyncio.run(_main())
