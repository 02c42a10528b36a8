"""A short form of `scripts/chaos`, which finds what nobody thought of; longer ones are for the command."""

import pytest

from scripts.stress.chaos import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_no_wrong_byte_no_hang_no_name(tmp_path, seed):
    ended = run(seed, seconds=12.0, clients=6, hang_s=30.0, directory=str(tmp_path))
    assert ended.record.details == []
    assert ended.left == []
    assert ended.serves_again
    assert ended.tracebacks == 0
    assert sum(ended.done.values()) > 2
