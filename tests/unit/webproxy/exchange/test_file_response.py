"""FileResponse: a body from a file pauses anywhere and resumes at the right byte, from the file or from the cache."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator

import pytest

from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import FileRef
from tests.support.channels import CAPACITY, body_of
from tests.support.pairs import Entry, MemoryPair, Pair
from tests.support.streams import NO_LIMIT, address_of, source_of
from webproxy.errors import BodyCutShort, ClientGone
from webproxy.exchange import body_transfer
from webproxy.exchange.body_transfer import FileResponse
from webproxy.store.cache_client import CacheClient
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event

KEY = b"/x"
BODY = body_of(5 * CAPACITY + 50)
VERSION = 1


class ScriptedStream(ClientStream):
    """A client that takes `step` bytes at a time, and nothing each `slow_every` calls."""

    def __init__(self, step: int = 1 << 30, *, slow_every: int = 0, leaves_at: int = 1 << 30) -> None:
        super().__init__(-1, NO_LIMIT)
        self.step = step
        self.slow_every = slow_every
        self.leaves_at = leaves_at
        self.calls = 0
        self.is_patient = False
        self.received = b""

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Take some."""
        self.calls += 1
        if len(self.received) >= self.leaves_at:
            raise ClientGone("the script says so")
        if self.slow_every and not self.calls % self.slow_every:
            return 0
        part = os.pread(fd, min(count, self.step), offset)
        self.received += part
        return len(part)

    def has_room_within(self, wait_ms: int) -> bool:
        """What the test says."""
        return self.is_patient

    def send_memory(self, address: int, count: int, more: bool = False) -> int:
        """Nothing comes from memory unless the file is gone."""
        raise AssertionError("sent from a segment")

    def send_chunk(self, pointer: object, count: int, more: bool) -> int:
        """As send_memory()."""
        return self.send_memory(address_of(pointer), count, more)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_transfer, "PIECE_BYTES", 50)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A cache that has the object too."""
    with MemoryPair(segments=4) as made:
        made.cache.entries[KEY] = Entry(BODY)
        yield made
        made.client.files.forget()


@pytest.fixture
def source() -> Iterator[int]:
    """The object's file, in the process that stands for the cache."""
    fd = os.memfd_create("object")
    os.write(fd, BODY)
    yield fd
    os.close(fd)


def hold(pair: Pair, fd: int) -> HotTableFile:
    status = os.fstat(fd)
    reference = FileRef(fd, status.st_dev, status.st_ino, len(BODY))
    file = pair.client.files.hold(os.getpid(), reference, VERSION, lambda: True)
    assert file is not None
    return file


def response_of(
    pair: Pair,
    stream: ClientStream,
    file: HotTableFile,
    *,
    first: int = 0,
    end: int = len(BODY),
    others_wait: Callable[[], bool] = bool,
) -> FileResponse:
    source = source_of(CacheClient(pair.client, patient=False), others_wait)
    return FileResponse(stream, KEY, file, source, first, end)


def finish(response: FileResponse, pause: Event | None) -> list[Event]:
    """Resume until the end; returns what it waited for each time."""
    pauses = []
    while pause is not None:
        pauses.append(pause)
        pause = response.resume()
    return pauses


@pytest.mark.parametrize(
    ("first", "end"), [(0, len(BODY)), (0, 1), (7, 9), (CAPACITY, len(BODY)), (len(BODY) - 1, len(BODY))]
)
def test_all_of_a_range(pair: Pair, source: int, first: int, end: int) -> None:
    stream, file = ScriptedStream(), hold(pair, source)
    assert response_of(pair, stream, file, first=first, end=end).send_file(file) is None
    assert stream.received == BODY[first:end]


@pytest.mark.parametrize("slow_every", [1, 2, 3])
def test_slow_again_and_again(pair: Pair, source: int, slow_every: int) -> None:
    stream, file = ScriptedStream(50, slow_every=slow_every + 1), hold(pair, source)
    response = response_of(pair, stream, file)
    pauses = finish(response, response.send_file(file))
    assert stream.received == BODY
    assert set(pauses) == {Event.WRITABLE}


def test_yields_after_its_slice_when_others_wait(pair: Pair, source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    stream, file = ScriptedStream(), hold(pair, source)
    response = response_of(pair, stream, file, others_wait=lambda: True)
    pauses = finish(response, response.send_file(file))
    assert stream.received == BODY
    assert pauses == [Event.TURN] * (-(-len(BODY) // 50) - 1)


def test_who_takes_a_part_only_is_slow_when_others_wait(
    pair: Pair, source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resumes when its socket has room, not when a worker has time."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    stream, file = ScriptedStream(7), hold(pair, source)
    response = response_of(pair, stream, file, others_wait=lambda: True)
    stream.is_patient = True
    assert set(finish(response, response.send_file(file))) == {Event.WRITABLE}
    assert stream.received == BODY


@pytest.mark.parametrize("step", [7, 50])
def test_keeps_its_worker_when_nobody_waits(
    pair: Pair, source: int, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whether the client takes whole pieces, or makes room soon."""
    monkeypatch.setattr(body_transfer, "SLICE_NS", -1)
    stream, file = ScriptedStream(step, slow_every=3), hold(pair, source)
    stream.is_patient = True
    assert response_of(pair, stream, file).send_file(file) is None
    assert stream.received == BODY


def test_a_quick_client_keeps_its_worker_for_its_slice(pair: Pair, source: int) -> None:
    """Others wait, and it makes room."""
    stream, file = ScriptedStream(7), hold(pair, source)
    stream.is_patient = stream.is_quick = True
    assert response_of(pair, stream, file, others_wait=lambda: True).send_file(file) is None
    assert stream.received == BODY


def test_client_gone(pair: Pair, source: int) -> None:
    stream, file = ScriptedStream(50, leaves_at=100), hold(pair, source)
    with pytest.raises(ClientGone):
        response_of(pair, stream, file).send_file(file)


class AnyStream(ScriptedStream):
    """Takes from a segment too: whole chunks up to `memory_step`, of a longer one `memory_left` bytes in all."""

    memory_step = 1 << 30
    memory_left = 10

    def send_memory(self, address: int, count: int, more: bool = False) -> int:
        """As a real one."""
        taken = min(count, self.memory_step)
        if taken < count:
            self.memory_left -= taken
            taken = taken if self.memory_left >= 0 else 0
        self.received += ctypes.string_at(address, taken)
        return taken

    def send_some(self, data: bytes, *, more: bool = False) -> int:
        """Likewise."""
        self.received += data[: self.memory_step]
        return min(len(data), self.memory_step)


def test_goes_on_from_the_cache_when_the_file_is_closed(pair: Pair, source: int) -> None:
    """The cache was restarted, or the client slept too long: the same version is continued by command."""
    stream, file = AnyStream(50, slow_every=2), hold(pair, source)
    response = response_of(pair, stream, file)
    assert response.send_file(file) is Event.WRITABLE
    pair.client.files.forget()
    assert finish(response, Event.WRITABLE) == [Event.WRITABLE]
    assert stream.received == BODY


def test_the_rest_of_a_last_chunk_goes_before_a_file_that_is_back(pair: Pair, source: int) -> None:
    """The file was closed, the last chunk came by command and was not taken, then somebody opened the file again."""
    stream, file = AnyStream(50, slow_every=2), hold(pair, source)
    first = len(BODY) - 100
    response = response_of(pair, stream, file, first=first)
    assert response.send_file(file) is Event.WRITABLE
    pair.client.files.forget()
    stream.memory_step = 10
    assert response.resume() is Event.WRITABLE
    hold(pair, source)
    assert response.resume() is Event.WRITABLE
    pair.client.files.forget()
    finish(response, Event.WRITABLE)
    assert stream.received == BODY[first:]


def test_a_file_that_somebody_cuts(pair: Pair, source: int) -> None:
    """Only a body that is short, and no loop."""
    stream, file = ScriptedStream(), hold(pair, source)
    os.ftruncate(source, 100)
    with pytest.raises(BodyCutShort):
        response_of(pair, stream, file).send_file(file)
    assert stream.received == BODY[:100]
