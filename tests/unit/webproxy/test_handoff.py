"""Handoff: is its descriptor readable once for each entry, and does nothing that waits in it outlive it?"""

from __future__ import annotations

import select

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


def test_closing_the_line_closes_what_waits_in_it() -> None:
    handoff = Handoff()
    with connected() as (fd, client), connected() as (other_fd, other):
        handoff.put((fd, b"/a"))
        handoff.put_paused(paused(other_fd))
        handoff.close()
        assert at_end(client) == b""
        assert at_end(other) == b""
