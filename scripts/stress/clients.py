"""Threads that request one thing after the other until the end, and the record of what became of it all."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from scripts.stress.checked import HANG, WRONG

_DETAILS_MAX = 200


class Performed(NamedTuple):
    """One request that is over: its kind, its text for a reader, and what became of it."""

    kind: str
    request: str
    outcome: str


Perform: TypeAlias = Callable[[random.Random], Performed]
"""Makes the next request by chance and blocks until it is over."""


@dataclass(slots=True)
class Record:
    """What the clients saw. Shared by their threads under `lock`."""

    must_not_be: Collection[str] = (HANG, WRONG)
    """Outcomes of any request that are a fault of the proxy."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    """Of what must not be, each with its request."""

    def note(self, performed: Performed, took_s: float, *, fault: bool = False) -> None:
        """Count one request; `fault`: its outcome must not be for a request of this kind."""
        kind, request, outcome = performed
        with self.lock:
            self.slowest_s[kind] = max(self.slowest_s.get(kind, 0.0), took_s)
            self.outcomes.setdefault(kind, Counter())[outcome] += 1
            if (fault or outcome in self.must_not_be) and len(self.details) < _DETAILS_MAX:
                self.details.append(f"{outcome} after {took_s:.1f} s: {request}")

    @property
    def all_counts(self) -> Counter[str]:
        """The outcomes of requests of all kinds together."""
        return sum(self.outcomes.values(), Counter())


class Client(threading.Thread):
    """Performs requests until `ending` is set. What it asks follows from the seed."""

    def __init__(
        self,
        seed: str,
        perform: Perform,
        record: Record,
        ending: threading.Event,
        is_fault: Callable[[Performed], bool] = lambda _: False,
    ) -> None:
        super().__init__(name=f"client-{seed}")
        self._choice = random.Random(seed)
        self._perform = perform
        self._record = record
        self._ending = ending
        self._is_fault = is_fault

    def run(self) -> None:
        """Never raises: a client that fails would be missed by nobody, and so is in the record."""
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                performed = self._perform(self._choice)
                is_fault = self._is_fault(performed)
            except Exception as error:  # noqa: BLE001 - whatever it was
                performed, is_fault = Performed("client", repr(error), "CLIENT FAILED"), True
            self._record.note(performed, time.monotonic() - began, fault=is_fault)


@contextmanager
def running_clients(crew: Sequence[Client], ending: threading.Event) -> Iterator[None]:
    """Run them for the time of the block; then set `ending`, and block until all have ended."""
    started: list[Client] = []
    try:
        for client in crew:
            client.start()
            started.append(client)
        yield
    finally:
        ending.set()
        for client in started:
            client.join()
