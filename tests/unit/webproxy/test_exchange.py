"""GetfileExchange: what a client is told for each thing that cache and origin may say, before and after the header."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from shmchannel.deadline import Deadline
from shmchannel.leased_transfer import IncomingTransfer
from tests.support.tcp import at_end, connected
from webproxy import sockets
from webproxy.cachelink import CacheLink
from webproxy.client_stream import RateLimit
from webproxy.errors import (
    CacheUnavailable,
    FetchAborted,
    OriginBadReply,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
    Overloaded,
)
from webproxy.exchange import GetfileExchange
from webproxy.fetches import Fetches
from webproxy.getfile import Wire
from webproxy.spool import Found, NotFound, Spool, SpoolReader
from webproxy.steps import StepTimes

BODY = os.urandom(100_000)


class NoCache(CacheLink):
    """A cache that is not to be had, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def get(self, key: bytes, deadline: Deadline, *, offset: int = 0, version: int = 0) -> IncomingTransfer:
        self.asked.append(key)
        raise CacheUnavailable("no cache")


class ScriptedFetches(Fetches):
    """Each open() does the next of what the test says."""

    def __init__(self, *opens: Callable[[], SpoolReader | None]) -> None:
        self._opens = list(opens)
        self.asked: list[bytes] = []

    def open(self, key: bytes, missed_at: float = float("inf")) -> SpoolReader | None:
        self.asked.append(key)
        return self._opens.pop(0)()


def exchange(cache: CacheLink | None, fetches: Fetches | None, wire: Wire = Wire.CRLF) -> GetfileExchange:
    return GetfileExchange(
        cache,
        fetches,
        wire=wire,
        deadline_s=10.0,
        queue_wait_s=2.0,
        client_limit=RateLimit(0, 1.0),
        steps=StepTimes(enabled=False),
        stopping=lambda: False,
    )


def served(made: GetfileExchange, path: bytes = b"/x") -> bytes:
    with connected() as (fd, client):
        assert made.serve(fd, path) is None
        sockets.end_sending(fd)
        reply = at_end(client)
        sockets.close(fd)
    return reply


def reader(answer: Found | NotFound | None, body: bytes = b"", error: OriginError | None = None) -> SpoolReader:
    """A reader of a fetch that came to its end like this."""
    spool = Spool(None)
    made = spool.join()
    assert made is not None
    if answer is not None:
        spool.answer(answer)
    if body:
        spool.write(body)
    spool.end(error)
    return made


def raising(error: Exception) -> Callable[[], SpoolReader | None]:
    def refuse() -> SpoolReader | None:
        raise error

    return refuse


@pytest.mark.parametrize(("wire", "reply"), [(Wire.CRLF, b"GETFILE ERROR\r\n\r\n"), (Wire.SPACE, b"GETFILE ERROR 0\n")])
def test_no_cache_and_no_origin_is_an_error(wire: Wire, reply: bytes) -> None:
    made = exchange(NoCache(), None, wire)
    assert served(made) == reply
    assert made.outcomes() == {"error": 1}


@pytest.mark.parametrize(
    "error",
    [
        OriginTimeout("t"),
        OriginUnreachable("u"),
        OriginBadReply("b", status=502),
        OriginTooLarge("l"),
        OriginRefused("r"),
        FetchAborted("a"),
    ],
)
def test_every_failure_of_the_origin_is_an_error(error: OriginError) -> None:
    assert served(exchange(None, ScriptedFetches(lambda: reader(None, error=error)))) == b"GETFILE ERROR\r\n\r\n"
    assert served(exchange(NoCache(), ScriptedFetches(raising(error)))) == b"GETFILE ERROR\r\n\r\n"


def test_too_many_fetches_is_an_error() -> None:
    assert served(exchange(None, ScriptedFetches(raising(Overloaded("full"))))) == b"GETFILE ERROR\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "reply"), [(Wire.CRLF, b"GETFILE FILE_NOT_FOUND\r\n\r\n"), (Wire.SPACE, b"GETFILE FILE_NOT_FOUND 0\n")]
)
def test_what_the_origin_lacks_is_not_found(wire: Wire, reply: bytes) -> None:
    made = exchange(NoCache(), ScriptedFetches(lambda: reader(NotFound())), wire)
    assert served(made) == reply
    assert made.outcomes() == {"not found": 1}


@pytest.mark.parametrize("size", [0, 1, len(BODY)])
@pytest.mark.parametrize(("wire", "end"), [(Wire.CRLF, b"\r\n\r\n"), (Wire.SPACE, b" ")])
def test_a_fetched_body_follows_its_length(wire: Wire, end: bytes, size: int) -> None:
    made = exchange(None, ScriptedFetches(lambda: reader(Found(size), BODY[:size])), wire)
    assert served(made) == b"GETFILE OK %d" % size + end + BODY[:size]
    assert made.outcomes() == {"fetched": 1}


@pytest.mark.parametrize("error", [OriginTimeout("stalled"), None])
def test_a_body_that_breaks_is_short_and_nothing_follows(error: OriginError | None) -> None:
    made = exchange(None, ScriptedFetches(lambda: reader(Found(len(BODY)), BODY[:60_000], error)))
    assert served(made) == b"GETFILE OK %d\r\n\r\n" % len(BODY) + BODY[:60_000]
    assert made.outcomes() == {"cut short": 1}


def test_the_key_is_the_normalised_path_for_cache_and_origin() -> None:
    cache, fetches = NoCache(), ScriptedFetches(lambda: reader(NotFound()))
    served(exchange(cache, fetches), b"/a/../%2e/b")
    assert cache.asked == fetches.asked == [b"/b"]


def test_the_cache_is_asked_again_when_it_was_filled_meanwhile() -> None:
    cache, fetches = NoCache(), ScriptedFetches(lambda: None, lambda: reader(Found(2), b"ok"))
    assert served(exchange(cache, fetches)) == b"GETFILE OK 2\r\n\r\nok"
    assert len(cache.asked) == len(fetches.asked) == 2


def test_a_client_that_left_is_counted_and_its_reader_leaves(tmp_path: Path) -> None:
    readers: list[SpoolReader] = []

    def opened() -> SpoolReader:
        readers.append(reader(Found(len(BODY) * 100), BODY))
        return readers[0]

    made = exchange(None, ScriptedFetches(opened))
    with connected() as (fd, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # the end is a reset
        client.close()
        assert made.serve(fd, b"/x") is None
        sockets.close(fd)
    assert made.outcomes() == {"client gone": 1}
    assert readers[0].fd == -1
