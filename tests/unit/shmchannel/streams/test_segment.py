"""Segments in shared memory: what the contract cannot see. Foreign blocks, full memory, the order of publishing."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmchannel.errors import AccessDenied, LayoutMismatch, LimitReached, NameMissing, ResourceError
from shmchannel.process.identity import own_identity
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.streams.layout import HEADER_BYTES, LAYOUT_VERSION, MAGIC, SegmentHeader
from shmchannel.streams.segment import Segment
from tests.support.channels import SEGMENT_BYTES, address_in, unique_segment
from tests.support.failing import failing, refusing
from tests.support.programs import require_program
from tests.support.stores import open_fds, run_script


@pytest.fixture
def name() -> str:
    return unique_segment()


def no_such_segment(name: str) -> bool:
    """Whether there is no such name."""
    return not os.path.exists(SHM_DIRECTORY + name)


def mappings_of(name: str) -> int:
    """How often this process maps it."""
    return Path("/proc/self/maps").read_text().count(name)


def test_mode_and_size(name: str) -> None:
    segment = Segment.create(name, 5000, own_identity())
    status = os.stat(SHM_DIRECTORY + name)
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == 5000
    assert status.st_blocks * 512 >= 5000, "all of it is there: the first touch cannot be SIGBUS"
    segment.unlink()
    segment.close()


def test_close_unmaps_and_keeps_no_descriptor(name: str) -> None:
    before = set(open_fds().values())
    segment = Segment.create(name, SEGMENT_BYTES, own_identity())
    attached = Segment.attach(name)
    assert set(open_fds().values()) - before <= {f"{SHM_DIRECTORY}{name}"}
    assert mappings_of(name) == 2
    attached.close()
    assert mappings_of(name) == 1
    segment.unlink()
    segment.close()
    assert mappings_of(name) == 0
    assert set(open_fds().values()) <= before


def test_nobody_attaches_before_the_magic(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of creation another process looks: it waits, and never takes a half-made segment."""
    refusals: list[str] = []

    def look() -> None:
        with pytest.raises(LayoutMismatch) as caught:
            Segment.attach(name)
        refusals.append(str(caught.value))

    original: Callable[..., None] = SegmentHeader.initialise
    fallocate = os.posix_fallocate

    def allocate(fd: int, offset: int, length: int) -> None:
        look()
        fallocate(fd, offset, length)
        look()

    def initialise(header: SegmentHeader, *arguments: object) -> None:
        look()
        original(header, *arguments)
        look()

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    monkeypatch.setattr(SegmentHeader, "initialise", initialise)
    segment = Segment.create(name, SEGMENT_BYTES, own_identity())
    Segment.attach(name).close()
    segment.unlink()
    segment.close()
    assert [text.rpartition(" ")[2] for text in refusals] == ["bytes", "yet", "yet", "yet"]


@pytest.mark.parametrize(
    ("word", "value", "kind"),
    [
        (0, 0, LayoutMismatch),
        (0, MAGIC ^ 1, LayoutMismatch),
        (1, LAYOUT_VERSION + 1, LayoutMismatch),
        (2, SEGMENT_BYTES * 2, LayoutMismatch),
        (3, SEGMENT_BYTES, LayoutMismatch),
    ],
)
def test_wrong_header(name: str, word: int, value: int, kind: type[Exception]) -> None:
    segment = Segment.create(name, SEGMENT_BYTES, own_identity())
    ctypes.c_uint64.from_address(address_in(segment, 8 * word)).value = value
    with pytest.raises(kind):
        Segment.attach(name)
    assert mappings_of(name) == 1, "nothing stays mapped"
    segment.unlink()
    segment.close()


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES, 511])
def test_block_too_small(name: str, size: int) -> None:
    """Any file of a user may lie there; one too short must not be touched behind its end."""
    path = Path(SHM_DIRECTORY + name)
    path.write_bytes(bytes(size))
    try:
        with pytest.raises(LayoutMismatch, match=str(size)):
            Segment.attach(name)
    finally:
        path.unlink()


def test_foreign_block_of_a_good_size(name: str) -> None:
    path = Path(SHM_DIRECTORY + name)
    path.write_bytes(b"x" * 4096)
    try:
        with pytest.raises(LayoutMismatch):
            Segment.attach(name)
    finally:
        path.unlink()


def test_another_users_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment.create(name, SEGMENT_BYTES, own_identity())
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(SHM_DIRECTORY + name).st_uid + 1)
    with pytest.raises(AccessDenied, match="uid"):
        Segment.attach(name)
    segment.unlink()
    segment.close()


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, LimitReached), (errno.ENOMEM, LimitReached), (errno.EIO, ResourceError)]
)
def test_system_refuses_the_memory(
    name: str, code: int, kind: type[ResourceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_fds()
    monkeypatch.setattr(os, "posix_fallocate", refusing(code))
    with pytest.raises(ResourceError, match=str(SEGMENT_BYTES)) as caught:
        Segment.create(name, SEGMENT_BYTES, own_identity())
    assert type(caught.value) is kind
    assert no_such_segment(name)
    assert len(open_fds()) == len(before)


def test_system_refuses_the_map(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", failing(OSError(errno.ENOMEM, "no")))
        with pytest.raises(LimitReached):
            Segment.create(name, SEGMENT_BYTES, own_identity())
    assert no_such_segment(name)
    with pytest.raises(NameMissing):
        Segment.attach(name)


def test_closed_with_a_view_left(name: str) -> None:
    segment = Segment.create(name, SEGMENT_BYTES, own_identity())
    segment.unlink()
    view = segment.chunk[:1]
    segment.close()
    assert mappings_of(name) == 1
    view.release()
    del segment
    gc.collect()  # the stack of resources keeps its error in a cycle
    assert mappings_of(name) == 0


def test_memory_full_for_real() -> None:
    script = """
        import os, subprocess
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "/dev/shm"], check=True)
        from shmchannel.deadline import Deadline
        from shmchannel.errors import LimitReached, PoolExhausted
        from shmchannel.streams.pool import SegmentPool

        def fill():
            with open("/dev/shm/filler", "ab", buffering=0) as filler:
                try:
                    while filler.write(bytes(4096)):
                        pass
                except OSError:
                    pass

        try:
            SegmentPool.create(8, 65536)
        except LimitReached as error:
            print("refused", error.errno, os.listdir("/dev/shm"))
        pool = SegmentPool.create(1, 65536)
        lease = pool.lease(Deadline.after(5.0))
        keeps_memory = os.open("/dev/shm" + lease.segments[0].name, os.O_RDONLY)
        fill()
        lease.retire()
        try:
            pool.lease(Deadline.after(5.0))
        except PoolExhausted as error:
            print("exhausted", "No space left" in str(error))
        os.close(keeps_memory)
        pool.lease(Deadline.after(5.0)).give_back()
        print("recovered", pool.stats().segments_total)
        pool.close()
        print(os.listdir("/dev/shm"))
    """
    prefix = (require_program("unshare"), "--user", "--map-root-user", "--mount")
    probe = run_script("print()", prefix=prefix)
    if probe.returncode:
        pytest.skip("no user namespaces here")
    child = run_script(script, prefix=prefix)
    assert child.stdout.splitlines() == [
        "refused 28 []",
        "exhausted True",
        "recovered 1",
        "['filler']",
    ], child.stderr
