"""Job and Outcome: a piece of a worker's work, and what it comes to.

A job never waits for its client or for its turn while it has a worker. Where it must wait it ends, and its outcome says
what for; whoever sees that happen puts it back into the run queue. Outcomes carry the job they speak of, because a
worker of HTTP may end with another connection than it began with. One place acts on them: ParkingLot.settle().
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from shmchannel.streams.admission import Ticket
from webproxy.transport.client_stream import ClientStream


class Event(Enum):
    """What a job waits for before it can be run again."""

    WRITABLE = "the client takes data again"
    TURN = "a worker, behind the jobs that wait for one or for a segment already"
    TICKET = "its turn among the long transfers"
    WIDTH = "more segments than its transfer holds; they have come free already"


class Job(Protocol):
    """One client's request or connection, between two waits in nobody's hands."""

    ticket: Ticket | None
    """What it has waited for by Event.TICKET, if it came in time; run() uses and leaves it."""

    @property
    def fd(self) -> int:
        """The client's connection."""

    @property
    def path(self) -> bytes:
        """What a log line names it by."""

    @property
    def stream(self) -> ClientStream:
        """The client, of a job that waits for Event.WRITABLE."""

    def run(self) -> Outcome:
        """Do what can be done now. Never raises for what client, cache or origin do."""

    def close(self) -> None:
        """The end of the process: close the connection as it is."""


class IdleJob(Job, Protocol):
    """One that waits for its client to send something."""

    expires: float
    """When its time is over (monotonic)."""
    is_watched: bool
    """Whoever keeps it knows the descriptor already."""

    @property
    def in_head(self) -> bool:
        """A request has begun to come."""

    def expire(self) -> Outcome:
        """Its time is over: run() will not be called any more. Never blocks."""


class KeepAlive(Enum):
    """The only member of its type, so that asking for it is one comparison."""

    KEEP_ALIVE = "the request is answered, and the client's next one may come"


KEEP_ALIVE = KeepAlive.KEEP_ALIVE


class Done(NamedTuple):
    """Answered: the connection closes when its client has read everything, or is broken already."""

    job: Job


class Idles(NamedTuple):
    """Nothing to do until the client sends something, for at most so long."""

    job: IdleJob
    limit_s: float


class WaitsFor(NamedTuple):
    """It goes on when the event has happened."""

    job: Job
    event: Event


Outcome: TypeAlias = Done | Idles | WaitsFor
"""Of a job."""
RequestOutcome: TypeAlias = KeepAlive | Done | WaitsFor
"""Of one request on an HTTP connection; its server takes the connection on from there."""
