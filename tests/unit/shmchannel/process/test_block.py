"""A block of shared memory is new, whole and its user's own, or there is none."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack

import pytest

from shmchannel.errors import LimitReached, NameTaken
from shmchannel.process.block import create_block
from shmchannel.process.naming import SHM_DIRECTORY
from tests.support.failing import failing

NAME = f"/gft-block-{os.getpid()}"
PATH = SHM_DIRECTORY + NAME


def test_it_is_of_zeros_and_for_its_user_only() -> None:
    with ExitStack() as undo:
        with create_block("a block", NAME, 5000, undo) as block:
            assert block[:] == bytes(5000)
        status = os.stat(PATH)
        assert (status.st_mode & 0o777, status.st_size, status.st_blocks > 0) == (0o600, 5000, True)
    assert not os.path.exists(PATH)


def test_a_name_that_is_taken_keeps_its_block() -> None:
    with ExitStack() as undo:
        create_block("a block", NAME, 100, undo).close()
        with pytest.raises(NameTaken, match="create a second block"), ExitStack() as other:
            create_block("a second block", NAME, 200, other)
        assert os.stat(PATH).st_size == 100


def test_one_that_has_no_room_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(OSError(errno.ENOSPC, "no space")))
    with pytest.raises(LimitReached), ExitStack() as undo:
        create_block("a block", NAME, 100, undo)
    assert not os.path.exists(PATH)
