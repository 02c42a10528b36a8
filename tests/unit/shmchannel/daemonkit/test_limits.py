"""Is the descriptor limit raised as far as the kernel lets us, and is memory counted in bytes?"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit.limits import FileLimit, raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lowered_limit() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = min(soft, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowered, hard))
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_raises_soft_limit_to_hard_one(lowered_limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert raise_file_limit() == FileLimit(before=lowered_limit, after=hard)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_refusal_leaves_the_limit(lowered_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert raise_file_limit() == FileLimit(before=lowered_limit, after=lowered_limit)
