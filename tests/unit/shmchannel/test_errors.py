"""Errors: the system's refusals become ours, with cause, number and advice."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap

import posix_ipc
import pytest

from shmchannel import errors
from shmchannel.errors import (
    AccessDenied,
    ChannelTimeout,
    LimitReached,
    NameMissing,
    NameTaken,
    ResourceError,
    ShmChannelError,
    os_errors,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EEXIST, NameTaken),
        (errno.ENOENT, NameMissing),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.ENOSPC, LimitReached),
        (errno.EMFILE, LimitReached),
        (errno.ENFILE, LimitReached),
        (errno.ENOMEM, LimitReached),
        (errno.EDQUOT, LimitReached),
        (errno.EIO, ResourceError),
    ],
)
def test_errno(code: int, kind: type[ResourceError]) -> None:
    with pytest.raises(ResourceError, match=r"^do this") as caught, os_errors("do this"):
        raise OSError(code, "the system's words")
    assert type(caught.value) is kind
    assert caught.value.errno == code
    assert isinstance(caught.value.__cause__, OSError)


def test_errors_of_posix_ipc() -> None:
    cases: list[tuple[Exception, int, type[ResourceError]]] = [
        (posix_ipc.ExistentialError("x"), errno.ENOENT, NameMissing),
        (posix_ipc.ExistentialError("x"), errno.EEXIST, NameTaken),
        (posix_ipc.PermissionsError("x"), errno.ENOENT, AccessDenied),
        (posix_ipc.Error("strange"), errno.ENOENT, ResourceError),
        (OSError("This process already has the maximum number of files open"), errno.ENOENT, LimitReached),
        (OSError("something else"), errno.ENOENT, ResourceError),
    ]
    for error, existential, kind in cases:
        with pytest.raises(ResourceError, match=r"^open it") as caught, os_errors("open it", existential=existential):
            raise error
        assert type(caught.value) is kind
        assert caught.value.__cause__ is error


def test_files_run_out_for_real() -> None:
    source = """
        import resource
        from shmchannel.messages.posix_queue import CommandQueue
        from shmchannel.errors import LimitReached
        from shmchannel.process.identity import own_identity
        from shmchannel.streams.segment import Segment

        me = own_identity()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        for create in (lambda name: Segment.create(name, 512, me), CommandQueue.create):
            try:
                create(f"/gf-{me.pid}-00000000-0")
            except LimitReached as error:
                print(error.errno)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (100, 100))
        try:
            CommandQueue.create(f"/gft-{me.pid}-bytes")
        except LimitReached as error:
            print(error.errno, "RLIMIT_MSGQUEUE, 100 bytes" in str(error))
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.stdout.split() == ["24", "24", "24", "True"], child.stderr


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), os_errors("divide"):
        raise ZeroDivisionError
    with os_errors("nothing"):
        pass


def test_text_and_hint() -> None:
    assert str(ShmChannelError("text")) == "text"
    assert str(ShmChannelError("text", hint="do that")) == "text (do that)"
    assert "gfcache-clean" in str(NameTaken("take /x", errno.EEXIST))
    assert str(NameTaken("take /x", errno.EEXIST, hint="")) == "take /x: File exists"
    assert str(NameTaken("process 7 has /x", errno.EEXIST, hint="", says_why=True)) == "process 7 has /x"
    assert issubclass(ChannelTimeout, TimeoutError)


def test_every_error_has_a_place_in_the_tree() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) > 15
    assert all(issubclass(kind, ShmChannelError) for kind in kinds)
