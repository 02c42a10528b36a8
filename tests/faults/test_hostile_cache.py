"""A fake cache that writes nonsense into the proxy's segments: the proxy sends no byte too many, and serves on."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmchannel.errors import ChannelTimeout, NameMissing
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.objects.commands import ANNOUNCEMENT, Command, decode
from shmchannel.process.identity import own_identity
from shmchannel.streams.chunk_writer import ChunkWriter
from shmchannel.streams.layout import LAST, OK, ObjectFacts
from shmchannel.streams.segment import Segment
from shmchannel.testing import ManualPeer
from tests.faults.harness import (
    CONTENT,
    LARGE,
    POOL_FLAGS,
    SEGMENTS,
    SMALL,
    Reply,
    ask,
    assert_ends_well,
    segments_of,
    write_content,
)
from tests.support.daemons import DaemonYard
from tests.support.waiting import wait_until
from webproxy.getfile import Status

REQUESTS = 100
CLIENTS = 4
FILLER = b"\xaa"
DECLARED_BYTES = 1_000_000
WORDS = (0, 1, 2, 3, 4, 5, 8, 9, 100, 7808, 7809, 8192, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)
SOON = {"WEBPROXY_CACHE_TIMEOUT_S": "1", "WEBPROXY_BETWEEN_BYTES_TIMEOUT_S": "0.5"}
Answer = Callable[[random.Random, Command, list[Segment]], None]


def word(numbers: random.Random) -> int:
    """A value that means something, or one that does not."""
    return numbers.choice(WORDS) if numbers.random() < 0.9 else numbers.getrandbits(64)


def fill_with_filler(segments: list[Segment]) -> None:
    for segment in segments:
        segment.chunk[:] = FILLER * segment.chunk_capacity


def scribble(numbers: random.Random, command: Command, segments: list[Segment]) -> None:
    """Any words, any number of hand-overs, and other words after the hand-over."""
    fill_with_filler(segments)
    for segment in segments:
        for _ in range(numbers.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 3))):
            facts = ObjectFacts(word(numbers), word(numbers), word(numbers))
            segment.header.write_object(*facts, own_identity())
            segment.header.write_chunk(word(numbers), word(numbers), word(numbers), word(numbers))
            if numbers.random() < 0.2:
                segment.header.write_request(word(numbers))
            segment.data_available.post()


def begin_well(numbers: random.Random, command: Command, segments: list[Segment]) -> None:
    """A first chunk as it should be, and then nonsense: so that a header has gone out to the client."""
    fill_with_filler(segments)
    first, *others = segments
    size = numbers.choice((1, 7808, 7809, 20_000, 2**40, 2**64 - 1))
    length = min(size, first.chunk_capacity)
    first.header.write_object(size, word(numbers), 0, own_identity())
    first.header.write_chunk(OK, length, 0, LAST if length == size else 0)
    first.data_available.post()
    scribble(numbers, command, others)
    for segment in others:
        if numbers.random() < 0.5:
            segment.header.write_chunk(OK, word(numbers), numbers.choice((7808, word(numbers))), word(numbers) % 4)
            segment.data_available.post()


def grow(numbers: random.Random, command: Command, segments: list[Segment]) -> None:
    """An object that has grown whenever a transfer of it resumes; all else is as it should be."""
    fill_with_filler(segments)
    size = DECLARED_BYTES if command.offset == 0 else DECLARED_BYTES * 3
    writer = ChunkWriter(segments, ManualPeer("the proxy"), 1.0, own_identity())
    writer.begin(ObjectFacts(size, 7, 0))
    writer.send(lambda views, _: sum(map(len, views)), command.offset, size)


@contextmanager
def fake_cache(queue_name: str, answer: Answer) -> Iterator[Counter[str]]:
    """A cache in a thread of the test's process, which answers each command so; counts what it was asked."""
    queue = CommandQueue.create(queue_name)
    ending = threading.Event()
    seen: Counter[str] = Counter()
    numbers = random.Random(11)

    def serve() -> None:
        while not ending.is_set():
            message = queue.receive(0.05)
            if message is None:
                continue
            command: Command = decode(message)
            seen[command.kind.name] += 1
            segments: list[Segment] = []
            try:
                segments += [Segment.attach(ref.name.decode()) for ref in command.segments]
                answer(numbers, command, segments)
            except (NameMissing, ChannelTimeout):  # the proxy has given up waiting
                pass
            finally:
                for segment in segments:
                    segment.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        queue.announce(ANNOUNCEMENT)
        queue.set_ready()
        yield seen
    finally:
        ending.set()
        thread.join()
        queue.close()


def assert_bounded(reply: Reply) -> None:
    """A refusal, or at most as many bytes as the header announced, all of them from the chunks."""
    assert reply.status is not None, "a living proxy closed without an answer"
    if reply.status is Status.OK:
        assert len(reply.body) <= reply.declared
        assert not reply.body.strip(FILLER), "bytes from outside the chunk"
    else:
        assert reply.status in (Status.ERROR, Status.FILE_NOT_FOUND)
        assert reply.body == b""


def assert_heals(port: int) -> None:
    """Right bytes again; a segment that the fake cache posted once too often costs one request, and is replaced."""
    failed = 0
    for path in (LARGE, SMALL, LARGE, SMALL, LARGE):
        wait_until(lambda path=path: ask(port, path).is_whole(CONTENT[path]), what="service is back")  # type: ignore[misc]
        with ThreadPoolExecutor(CLIENTS) as crew:
            replies = list(crew.map(ask, [port] * 2 * SEGMENTS, [path] * 2 * SEGMENTS))
        for reply in replies:
            reply.assert_honest(CONTENT[path])
            failed += not reply.is_whole(CONTENT[path])
    assert failed <= SEGMENTS


def test_an_object_that_grows_in_mid_body(yard: DaemonYard) -> None:
    proxy = yard.start_proxy(*POOL_FLAGS, env=SOON)
    with fake_cache(yard.queue, grow) as seen:
        wait_until(yard.has_cache, what="the fake cache")
        replies = [ask(proxy.port, LARGE) for _ in range(4)]
    assert seen["GET"] > len(replies), "no transfer was interrupted: this test tells nothing"
    for reply in replies:
        assert reply.declared == DECLARED_BYTES
        assert_bounded(reply)
    assert any(len(reply.body) < DECLARED_BYTES for reply in replies)
    assert_ends_well(proxy)


@pytest.mark.parametrize("answer", [scribble, begin_well])
def test_nonsense_in_the_segments(answer: Answer, yard: DaemonYard, tmp_path: Path) -> None:
    content = write_content(tmp_path / "content")
    proxy = yard.start_proxy(*POOL_FLAGS, env=SOON)
    with fake_cache(yard.queue, answer) as seen:
        wait_until(yard.has_cache, what="the fake cache")
        with ThreadPoolExecutor(CLIENTS) as crew:
            replies = list(crew.map(lambda _: ask(proxy.port, LARGE), range(REQUESTS)))
    assert seen["GET"] >= REQUESTS
    for reply in replies:
        assert_bounded(reply)
    statuses = Counter(reply.status for reply in replies)
    if answer is scribble:
        assert statuses[Status.ERROR] > REQUESTS // 2, statuses
    else:
        assert statuses[Status.OK] > REQUESTS // 2, statuses
        assert any(len(reply.body) < reply.declared for reply in replies)
    cache = yard.start_cache(content=content)
    assert_heals(proxy.port)
    wait_until(lambda: len(segments_of(proxy)) == SEGMENTS, what="all segments are there")
    assert_ends_well(proxy, cache)
    stopped = proxy.events("stopped")[-1]
    assert stopped["retired"] > 0
