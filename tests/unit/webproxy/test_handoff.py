"""Handoff: is its descriptor readable once for each entry, and does nothing that waits in it outlive it?"""

from __future__ import annotations

import os
import select

import pytest

from tests.support.tcp import at_end, connected
from webproxy import sockets
from webproxy.client_stream import ClientStream, RateLimit
from webproxy.handoff import Handoff
from webproxy.hit import HitResponse


def paused(fd: int) -> HitResponse:
    return HitResponse(ClientStream(fd, RateLimit(0, 1), lambda: False), b"/path", 100, 1, lambda: False)


def readable(handoff: Handoff) -> bool:
    poll = select.poll()
    poll.register(handoff.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_the_line_is_readable_once_for_each_entry_of_both_kinds() -> None:
    handoff = Handoff()
    with connected() as (fd, _client):
        response = paused(fd)
        assert handoff.take() is None
        assert handoff.take_paused() is None
        handoff.put((7, b"/a"))
        handoff.put((8, b"/b"))
        handoff.put_paused(response)
        assert handoff.waiting == 3
        assert [readable(handoff), handoff.take()] == [True, (7, b"/a")]
        assert [readable(handoff), handoff.take_paused()] == [True, response]
        assert [readable(handoff), handoff.take()] == [True, (8, b"/b")]
        assert not readable(handoff)
        sockets.close(fd)
    handoff.close()


@pytest.mark.parametrize("is_paused", [False, True], ids=["a request", "a paused response"])
def test_who_takes_an_entry_while_it_is_put_leaves_nothing_to_read(
    is_paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that stays readable keeps every idle worker awake."""
    handoff = Handoff()
    make_readable = os.eventfd_write
    with connected() as (fd, _client):
        put, take, entry = (
            (handoff.put_paused, handoff.take_paused, paused(fd))
            if is_paused
            else (handoff.put, handoff.take, (fd, b"/"))
        )
        taken = []

        def with_another_worker_about(eventfd: int, count: int) -> None:
            taken.append(take())
            make_readable(eventfd, count)
            taken.append(take())

        with monkeypatch.context() as patched:
            patched.setattr(os, "eventfd_write", with_another_worker_about)
            put(entry)  # type: ignore[operator]
        taken.append(take())
        assert [one for one in taken if one is not None] == [entry]
        assert not readable(handoff)
        sockets.close(fd)
    handoff.close()


def test_closing_the_line_closes_what_waits_in_it() -> None:
    handoff = Handoff()
    with connected() as (fd, client), connected() as (other_fd, other):
        handoff.put((fd, b"/a"))
        handoff.put_paused(paused(other_fd))
        handoff.close()
        assert at_end(client) == b""
        assert at_end(other) == b""
