"""PURE: the chunked transfer coding (RFC 9112 section 7.1): ChunkedBody decodes it; the framing of chunks sent."""

from __future__ import annotations

import re

from webproxy.http.messages import HttpError
from webproxy.http.syntax import FIELD_LINE, LENGTH_MAX, TOKEN

CHUNK_LINE_BYTES_MAX = 256
"""Of the line that gives a chunk's size, including its extensions and line end."""
EXTENSION_BYTES_MAX = 8192
"""Of all extensions in one body: tiny chunks with long extensions are an attack, not a body."""

CHUNK_END = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]++|\\[\t -~\x80-\xff])*"'
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16}+)((?:;%s(?:=(?:%s|%s))?)*)\r\n" % (TOKEN, TOKEN, _QUOTED)).fullmatch
_is_trailer_line = re.compile(FIELD_LINE).fullmatch


class ChunkedBody:
    """Decodes one body piece by piece. Extensions and trailers are checked, counted and dropped.

    Stricter than the grammar in one respect: no white space around the ";" and "=" of an extension, because parsers
    disagree about it.
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
        """The last chunk, the trailers and the empty line after them have been consumed."""
        self._left = 0
        self._end_due = False
        self._in_trailers = False
        self._extension_bytes = EXTENSION_BYTES_MAX
        self._trailer_bytes = trailer_bytes_max
        self._trailers = trailers_max

    def take(self, buffer: bytes, at: int) -> tuple[bytes, int]:
        """Consume what is possible of `buffer` from `at` on; returns body bytes and the offset of what is left.

        Raises HttpError 400 for a malformed chunk, 431 for too many or too long trailers.
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
                    raise HttpError(400, "chunk data exceeds its size")
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
            raise HttpError(400, "invalid chunk size")
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
            raise HttpError(400, "invalid trailer line")


def chunk_head(size: int) -> bytes:
    """What precedes a chunk of `size` bytes, at least 1; CHUNK_END follows it (RFC 9112 section 7.1)."""
    assert size > 0, "an empty chunk would end the body"
    return b"%x\r\n" % size
