"""PURE: ChunkedBody: the bytes of a body in chunks → the body (RFC 9112 section 7.1)."""

from __future__ import annotations

import re

from webproxy.http.errors import HttpError
from webproxy.http.syntax import FIELD_LINE, LENGTH_MAX, TOKEN

CHUNK_LINE_BYTES_MAX = 256
"""A chunk's size with its extensions and line end."""
EXTENSION_BYTES_MAX = 8192
"""The extensions of a whole body: tiny chunks with long extensions are an attack, not a body."""

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16}+)((?:;%s(?:=(?:%s|%s))?)*+)\r\n" % (TOKEN, TOKEN, _QUOTED)).fullmatch
_is_trailer_line = re.compile(FIELD_LINE).fullmatch


class ChunkedBody:
    """The state between the pieces of one body. Extensions and trailers are checked, counted and dropped.

    Stricter than the grammar in one point: no blanks around an extension's signs, because parsers disagree on them.
    """

    __slots__ = (
        "_end_due",
        "_extension_bytes",
        "_in_trailers",
        "_left",
        "_trailer_bytes",
        "_trailers",
        "complete",
    )

    def __init__(self, *, trailer_bytes_max: int, trailers_max: int) -> None:
        self.complete = False
        """The empty line behind the last chunk and the trailers has been taken."""
        self._left = 0
        self._end_due = False
        self._in_trailers = False
        self._extension_bytes = EXTENSION_BYTES_MAX
        self._trailer_bytes = trailer_bytes_max
        self._trailers = trailers_max

    def take(self, buffer: bytes, at: int) -> tuple[bytes, int]:
        """What can be taken of `buffer` from `at` on: bytes of the body, and where the rest begins.

        Raises HttpError 400 for what is no chunk, 431 for too many trailers.
        """
        parts = []
        while not self.complete and at < len(buffer):
            if self._left:
                part = buffer[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._end_due = not self._left
            elif self._end_due:
                if not b"\r\n".startswith(buffer[at : at + 2]):
                    raise HttpError(400, "a chunk is longer than its size")
                if at + 2 > len(buffer):
                    break
                at += 2
                self._end_due = False
            else:
                line = self._next_line(buffer, at)
                if line is None:
                    break
                at += len(line)
                self._take_line(line)
        return b"".join(parts), at

    def _next_line(self, buffer: bytes, at: int) -> bytes | None:
        bytes_max = self._trailer_bytes if self._in_trailers else CHUNK_LINE_BYTES_MAX
        end = buffer.find(b"\n", at, at + bytes_max) + 1
        if end:
            return buffer[at:end]
        if len(buffer) - at < bytes_max:
            return None
        raise HttpError(431, "trailers too long") if self._in_trailers else HttpError(400, "chunk size line too long")

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            self._take_trailer(line)
            return
        found = _chunk_line(line)
        if found is None or (size := int(found[1], 16)) > LENGTH_MAX:
            raise HttpError(400, "not a chunk size")
        self._extension_bytes -= len(found[2])
        if self._extension_bytes < 0:
            raise HttpError(400, "too many chunk extensions")
        self._left = size
        self._in_trailers = size == 0

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.complete = True
            return
        self._trailer_bytes -= len(line)
        self._trailers -= 1
        if self._trailers < 0:
            raise HttpError(431, "too many trailers")
        if _is_trailer_line(line) is None:
            raise HttpError(400, "not a trailer line")
