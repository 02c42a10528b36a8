"""BodyWriter and StoredObject by themselves; what stores make of them is in tests/contract."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import NotStored, StoreUnavailable
from simplecached.stores.store import BodyWriter, StoredObject
from tests.support.failing import failing, refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Calls:
    """A store's callbacks at the two ends, counted."""

    def __init__(self) -> None:
        self.committed = 0
        self.aborted = 0

    def commit(self) -> int:
        self.committed += 1
        return 7

    def abort(self) -> None:
        self.aborted += 1


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def make_writer(fd: int, calls: Calls) -> Callable[[int], BodyWriter]:
    return lambda size_bytes: BodyWriter(fd, size_bytes, "/store", commit=calls.commit, abort=calls.abort)


def test_a_short_count_of_the_kernel_is_made_up_for(
    make_writer: Callable[[int], BodyWriter], fd: int, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, chunk: real(fd, bytes(chunk)[:3]))
    writer = make_writer(10)
    source = bytearray(b"0123456789")
    with memoryview(source) as view:
        writer.write(view)
    source.clear()  # fails when a part of the view is still held
    assert os.pread(fd, 20, 0) == b"0123456789"
    assert (writer.commit(), calls.committed, calls.aborted) == (7, 1, 0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_refusing_medium_is_named_and_the_commit_refused(
    make_writer: Callable[[int], BodyWriter], calls: Calls, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    writer = make_writer(4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refusing(code))
        with pytest.raises(StoreUnavailable, match="/store") as caught:
            writer.write(memoryview(b"body"))
    assert caught.value.errno == code
    assert caught.value.hint
    with pytest.raises(NotStored, match="announced bytes"):
        writer.commit()
    writer.abort()
    assert (calls.committed, calls.aborted) == (0, 1)


def test_a_failing_commit_aborts(fd: int, calls: Calls) -> None:
    writer = BodyWriter(
        fd, 0, "/store", commit=failing(StoreUnavailable("commit", "/store", errno.ENOSPC)), abort=calls.abort
    )
    with pytest.raises(StoreUnavailable):
        writer.commit()
    writer.abort()
    assert calls.aborted == 1


def test_nothing_follows_the_end(make_writer: Callable[[int], BodyWriter]) -> None:
    for end in ("commit", "abort"):
        writer = make_writer(0)
        getattr(writer, end)()
        with pytest.raises(AssertionError):
            writer.write(memoryview(b""))
        with pytest.raises(AssertionError):
            writer.commit()


def test_a_stored_object_is_released_once_and_unusable_then() -> None:
    released: list[object] = []
    stored = StoredObject(3, 4, 5, b"m", released.append, "token")
    with stored as same:
        assert same is stored
        assert (stored.fd, stored.size_bytes, stored.version, stored.metadata) == (3, 4, 5, b"m")
    assert released == ["token"]
    assert stored.fd == -1
    with pytest.raises(AssertionError):
        stored.release()
