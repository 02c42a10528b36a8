"""Job and Outcome: a piece of a worker's work, and its result.

A job never blocks a worker to wait for its client or its turn. It ends instead, and its outcome names the event it
waits for; whoever observes the event puts the job back into the run queue. Outcomes carry their job, because a worker
serving HTTP may end with another connection than it began with. One place acts on outcomes: ParkingLot.settle().
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from shmchannel.streams.admission import Ticket
from webproxy.transport.client_stream import ClientStream


class Event(Enum):
    """The event a job waits for before it can be run again."""

    WRITABLE = "the client takes data again"
    TURN = "a worker, behind the jobs that wait for one or for a segment already"
    TICKET = "its turn among the long transfers"


class Signal(Protocol):
    """Something that others make progress with."""

    def subscribe(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once, from any thread, when there is progress; False if there is some already: no call follows.

        The call may be in vain.
        """


class AnyOf(NamedTuple):
    """Whatever comes first: progress, something from the client, room for the client, or the end of the time."""

    signals: tuple[Signal, ...] = ()
    is_readable: bool = False
    is_writable: bool = False
    limit_s: float = math.inf


Wait: TypeAlias = Event | Signal | AnyOf
"""What a job waits for. While it waits for a signal, its client may leave."""


def either(first: Wait, second: AnyOf) -> Wait:
    """Whichever of both comes first."""
    if first is Event.TURN:  # which comes at once
        return first
    if isinstance(first, Event):
        first = AnyOf(is_writable=first is Event.WRITABLE)
    elif not isinstance(first, AnyOf):
        first = AnyOf((first,))
    return AnyOf(
        first.signals + second.signals,
        first.is_readable or second.is_readable,
        first.is_writable or second.is_writable,
        min(first.limit_s, second.limit_s),
    )


_T = TypeVar("_T")
Steps: TypeAlias = Generator[Wait, None, _T]
"""Work that yields what it must wait for, and is continued when that has happened; close() it to give it up."""


class Job(Protocol):
    """One client's request or connection that is not with a worker at the moment."""

    ticket: Ticket | None
    """The ticket it waited for by Event.TICKET, if it came in time; run() uses and leaves it."""
    has_left: bool
    """Its client has closed the connection while the job waited for a signal; run() gives the request up."""

    @property
    def fd(self) -> int:
        """The client's connection."""

    @property
    def path(self) -> bytes:
        """Its name in log lines."""

    @property
    def request_id(self) -> bytes:
        """The id in log lines of the request that is being answered; empty if there is none."""

    @property
    def stream(self) -> ClientStream:
        """The client of a job that waits for Event.WRITABLE."""

    def run(self) -> Outcome:
        """Do what can be done now. Never raises for failures of client, cache or origin."""

    def close(self) -> None:
        """Give it up, and close the connection as it is: its client is too slow, or the process ends. Never blocks."""


class IdleJob(Job, Protocol):
    """A job that waits for its client to send something."""

    expires: float
    """When it expires (monotonic)."""
    is_watched: bool
    """The epoll that keeps it knows the descriptor already."""

    @property
    def in_head(self) -> bool:
        """A request has begun to arrive."""

    def expire(self) -> Outcome:
        """It has expired: run() will not be called again. Never blocks."""


class KeepAlive(Enum):
    """The only member of its type, so that checking for it is one comparison."""

    KEEP_ALIVE = "the request is answered, and the client's next one may come"


KEEP_ALIVE = KeepAlive.KEEP_ALIVE


class Done(NamedTuple):
    """Answered: the connection closes once its client has read everything, or is broken already."""

    job: Job
    lingers: bool = True
    """The client may still send something. If not, as it has said, and if the kernel has all that it is to be sent, the
    connection closes at once: nothing can arrive for which the kernel would reset it (RFC 9112 section 9.6).
    """


class Idles(NamedTuple):
    """Nothing to do until the client sends something, for at most that long."""

    job: IdleJob
    limit_s: float


class WaitsFor(NamedTuple):
    """The job continues when the event has happened, or the signal is given."""

    job: Job
    event: Wait


Outcome: TypeAlias = Done | Idles | WaitsFor
"""The outcome of a job."""
RequestOutcome: TypeAlias = KeepAlive | Done | WaitsFor
"""The outcome of one request on an HTTP connection; the server continues with the connection."""
