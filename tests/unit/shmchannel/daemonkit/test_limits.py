"""Is the descriptor limit raised as far as the kernel lets us?"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from shmchannel.daemonkit.limits import raise_file_limit
from tests.support.failing import failing

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
    assert lowered_limit < hard
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_refusal_leaves_the_limit(lowered_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", failing(ValueError("not allowed to raise maximum limit")))
        raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == lowered_limit
