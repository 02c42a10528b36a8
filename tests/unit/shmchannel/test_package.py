"""The package's face: what it exports, and the example in its docstring."""

import re
import textwrap

import shmchannel
from tests.support.channels import unique_queue


def test_example_runs() -> None:
    assert shmchannel.__doc__ is not None
    match = re.search(r"\n\n(    from .*)", shmchannel.__doc__, re.DOTALL)
    assert match is not None
    scope: dict[str, object] = {"QUEUE_NAME": unique_queue()}
    exec(textwrap.dedent(match[1]), scope)
    assert scope["answer"] == b"HELLO"


def test_exports() -> None:
    assert sorted(shmchannel.__all__) == shmchannel.__all__
    for name in shmchannel.__all__:
        assert getattr(shmchannel, name).__module__.startswith("shmchannel.")
