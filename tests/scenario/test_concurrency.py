"""`-t` lookups wait out their delay at the same time, and no more: seen in the depth of the command queue."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import posix_ipc
import pytest

from tests.support.client import Answer, ask
from tests.support.contents import write_files
from tests.support.daemons import DaemonYard
from tests.support.waiting import wait_until
from webproxy.getfile import Status

LONGEST_DELAY_US = "5000000"
QUEUED = 8
"""Close to what the queue has room for: no depth that is passed on the way to the last request."""


def queue_depth(yard: DaemonYard) -> int:
    with contextlib.closing(posix_ipc.MessageQueue(yard.queue, read=False)) as queue:
        return int(queue.current_messages)


@pytest.mark.parametrize("threads", [1, 4, 8])
def test_as_many_lookups_at_once_as_threads(yard, tmp_path, threads):
    """What is in the air and not in the queue is inside its delay. The stop then ends all delays."""
    bodies = write_files(tmp_path / "files", {"file": 2_000})
    cache = yard.start_cache("-t", str(threads), "-d", LONGEST_DELAY_US, content=tmp_path / "files")
    clients = threads + QUEUED
    proxy = yard.start_proxy("-t", str(clients), "-n", str(clients))
    with ThreadPoolExecutor(clients) as crew:
        answers = [crew.submit(ask, proxy.port, "/file") for _ in range(clients)]
        wait_until(lambda: queue_depth(yard) == QUEUED, what="the queue's depth")
        assert not any(answer.done() for answer in answers)
        assert cache.stop() == 0
        assert {answer.result() for answer in answers} == {Answer(Status.OK, bodies["/file"], 2_000)}
    assert cache.wait_event("stopped")["served"] == clients


def test_a_delayed_answer_comes(yard, tmp_path):
    bodies = write_files(tmp_path / "files", {"file": 2_000})
    yard.start_cache("-t", "2", "-d", "50000", content=tmp_path / "files")
    proxy = yard.start_proxy()
    assert ask(proxy.port, "/file").body == bodies["/file"]
    assert ask(proxy.port, "/absent").status is Status.FILE_NOT_FOUND


def test_a_delay_past_the_deadline_is_an_error_and_the_next_request_is_served(yard, tmp_path):
    """The answer that comes too late goes into retired memory, not into the next reply."""
    bodies = write_files(tmp_path / "files", {"file": 2_000, "other": 3_000})
    slow = yard.start_cache("-t", "1", "-d", LONGEST_DELAY_US, content=tmp_path / "files")
    proxy = yard.start_proxy("-n", "1", env={"WEBPROXY_CACHE_TIMEOUT_S": "1"})
    assert ask(proxy.port, "/file").status is Status.ERROR
    assert slow.stop() == 0
    yard.start_cache(content=tmp_path / "files")
    assert ask(proxy.port, "/other").body == bodies["/other"]
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["error"], stopped["hit"], stopped["retired"]) == (1, 1, 1)
