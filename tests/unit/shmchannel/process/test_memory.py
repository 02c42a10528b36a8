"""What is asked for is compared with what there is, and the refusal has both numbers and a remedy."""

from __future__ import annotations

import errno
import os
import re

import pytest

from shmchannel.errors import LimitReached
from shmchannel.process.memory import available_memory, require_memory, shared_memory_room
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.streams.layout import SEGMENT_BYTES_MAX
from shmchannel.streams.pool import SegmentPool

_TOO_MUCH = 1 << 60


def test_what_there_is() -> None:
    room, memory = shared_memory_room(), available_memory()
    assert room is not None
    assert memory is not None
    assert 0 < room <= os.statvfs(SHM_DIRECTORY).f_blocks * os.statvfs(SHM_DIRECTORY).f_frsize
    assert 0 < memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def test_what_fits_is_not_refused() -> None:
    require_memory("a page", 4096, hint="none is needed")
    require_memory("a page", 4096, hint="none is needed", shared=False)


@pytest.mark.parametrize(
    ("shared", "code", "where"), [(True, errno.ENOSPC, SHM_DIRECTORY), (False, errno.ENOMEM, "memory available")]
)
def test_too_much(shared: bool, code: int, where: str) -> None:
    with pytest.raises(LimitReached, match=re.escape(where)) as refusal:
        require_memory("a whale", _TOO_MUCH, hint="take a smaller one", shared=shared)
    assert refusal.value.errno == code
    text = str(refusal.value)
    assert text.startswith(f"a whale: {_TOO_MUCH:,} bytes wanted, ")
    assert text.endswith("(take a smaller one)")
    assert len(re.findall(r"[0-9][0-9,]{6,}", text)) == 2, "what is wanted, and what there is"


def test_kernel_that_does_not_say(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setattr("shmchannel.process.memory.MEMINFO", os.path.join(tmp_path, "none"))
    assert available_memory() is None
    require_memory("a whale", _TOO_MUCH, hint="", shared=False)


def own_names() -> set[str]:
    """Those of this process: other pairs of the user may come and go."""
    return {name for name in os.listdir(SHM_DIRECTORY) if name.startswith(f"gf-{os.getpid()}-")}


def test_pool_that_is_too_large_leaves_nothing() -> None:
    before = own_names()
    with pytest.raises(LimitReached, match=f"a pool of 4096 segments of {SEGMENT_BYTES_MAX} bytes"):
        SegmentPool.create(4096, SEGMENT_BYTES_MAX)
    assert own_names() == before
