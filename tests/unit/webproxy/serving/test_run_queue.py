"""RunQueue: is its descriptor readable once for each entry, and does nothing that waits in it outlive it?"""

from __future__ import annotations

import os
import select

import pytest

from tests.support.tcp import at_end, connected
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, RateLimit


def paused(fd: int) -> BodyTransfer:
    return BodyTransfer(ClientStream(fd, RateLimit(0, 1), lambda: False), b"/path", 100, 1, lambda: False)


def readable(run_queue: RunQueue) -> bool:
    poll = select.poll()
    poll.register(run_queue.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_the_line_is_readable_once_for_each_entry_of_both_kinds() -> None:
    run_queue = RunQueue()
    with connected() as (fd, _client):
        response = paused(fd)
        assert run_queue.take() is None
        assert run_queue.take_paused() is None
        run_queue.put((7, b"/a"))
        run_queue.put((8, b"/b"))
        run_queue.put_paused(response)
        assert run_queue.waiting == 3
        assert [readable(run_queue), run_queue.take()] == [True, (7, b"/a")]
        assert [readable(run_queue), run_queue.take_paused()] == [True, response]
        assert [readable(run_queue), run_queue.take()] == [True, (8, b"/b")]
        assert not readable(run_queue)
        sockets.close(fd)
    run_queue.close()


@pytest.mark.parametrize("is_paused", [False, True], ids=["a request", "a paused response"])
def test_who_takes_an_entry_while_it_is_put_leaves_nothing_to_read(
    is_paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that stays readable keeps every idle worker awake."""
    run_queue = RunQueue()
    make_readable = os.eventfd_write
    with connected() as (fd, _client):
        put, take, entry = (
            (run_queue.put_paused, run_queue.take_paused, paused(fd))
            if is_paused
            else (run_queue.put, run_queue.take, (fd, b"/"))
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
        assert not readable(run_queue)
        sockets.close(fd)
    run_queue.close()


def test_closing_the_line_closes_what_waits_in_it() -> None:
    run_queue = RunQueue()
    with connected() as (fd, client), connected() as (other_fd, other):
        run_queue.put((fd, b"/a"))
        run_queue.put_paused(paused(other_fd))
        run_queue.close()
        assert at_end(client) == b""
        assert at_end(other) == b""
