"""Handle: one of libcurl's, lent to one hop after the other, which keeps what it was told of an ordinary request.

To tell libcurl everything anew costs as much as the rest of a short request, and so does a Python frame for each line
of a head. So a handle remembers for which kind of ordinary request its options are set (`told`); the next one of that
kind sets only what differs. Its callbacks are made once, and find the hop that has it. They collect the lines of a
head, and pass them on when it is complete.

A hop that has to tell it anything else resets it first, and leaves `told` empty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import pycurl

_ENDS_OF_HEAD = frozenset((b"\r\n", b"\n"))


class User(Protocol):
    """The hop that has the handle. What a callback raises is kept by failed(), and told at the end."""

    lines: list[bytes]
    """Those of a head, or trailers, that were not passed on yet."""
    line_bytes: int
    """How many have come in all."""
    line_bytes_max: int
    """With more of them, they are passed on."""

    def take_head(self) -> int | None:
        """The lines of a head are complete, or too many."""

    def take_body(self, data: bytes) -> int | None:
        """Of the body."""

    def make_socket(self, purpose: int, address: tuple[Any, ...]) -> Any:
        """For a connection."""

    def failed(self, error: BaseException) -> None:
        """A callback has raised this: libcurl is in between."""


class Handle:
    """For the thread that runs libcurl."""

    __slots__ = ("curl", "told", "user")

    def __init__(self) -> None:
        self.curl = pycurl.Curl()
        self.user: User | None = None
        self.told: Hashable = None
        """For what kind of request its options are set; None if for none that may come again."""

    def reset(self) -> None:
        """Forget all options but the callbacks."""
        curl, self.told = self.curl, None
        curl.reset()
        curl.setopt(pycurl.HEADERFUNCTION, self._take_line)
        curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._make_socket)

    def close(self) -> None:
        """Release what libcurl has for it."""
        self.curl.close()

    def _take_line(self, line: bytes) -> int | None:
        user = self.user
        if user is None:
            return -1
        user.lines.append(line)
        user.line_bytes += len(line)
        if line in _ENDS_OF_HEAD or user.line_bytes > user.line_bytes_max:
            taken: int | None = guarded(user, user.take_head, -1)
            return taken
        return None

    def _take_body(self, data: bytes) -> int | None:
        user = self.user
        taken: int | None = -1 if user is None else guarded(user, user.take_body, -1, data)
        return taken

    def _make_socket(self, purpose: int, address: tuple[Any, ...]) -> Any:
        user = self.user
        bad = pycurl.SOCKET_BAD
        return bad if user is None else guarded(user, user.make_socket, bad, purpose, address)


def guarded(user: User, callback: Callable[..., Any], refusal: Any, *arguments: Any) -> Any:
    """Call it for libcurl, which is told the refusal in place of an exception."""
    try:
        return callback(*arguments)
    except BaseException as error:  # noqa: BLE001 - libcurl is in between: kept, and told at the end
        user.failed(error)
        return refusal
