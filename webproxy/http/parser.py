"""PURE: RequestParser: the bytes of a client connection → request heads and bodies (RFC 9112).

Not based on httptools, which rejects methods it does not know, cannot stop at the end of a message, and leaves some
checks to its users. Tests compare the two: whatever is accepted here, httptools parses to the same result.
"""

from __future__ import annotations

import re

from webproxy.http.chunked import ChunkedBody
from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, HttpError, RequestHead
from webproxy.http.request_section import RequestSection, is_authority, is_field_line, read_section, split_block
from webproxy.http.syntax import METHOD, match_http_url

HEAD_BYTES_MAX = 8192
FIELDS_MAX = 100
REQUEST_LINE_BYTES_MAX = 8192
"""Without its CR LF (RFC 9112 section 3 asks for at least 8000)."""

# Non-ASCII bytes are not allowed in a target, but clients send them, and no parser takes one for a delimiter.
_REQUEST_LINE = rb"(%s) ([!-~\x80-\xff]++) HTTP/" % METHOD
_request_line = re.compile(rb"%s1\.([01])\r\n" % _REQUEST_LINE).match
_is_other_version = re.compile(rb"%s[0-9]\.[0-9]\r\n" % _REQUEST_LINE).fullmatch
_may_begin = re.compile(rb"%s(?: |\Z)|\r?\Z" % METHOD).match
_VERSIONS = {b"0": (1, 0), b"1": (1, 1)}

# Clients of one kind send the same fields with every request on every connection. Sections that identify a user are
# not remembered.
_known_sections: dict[tuple[bytes, bytes, int], RequestSection] = {}
_KNOWN_SECTIONS_MAX = 256
_KNOWN_BLOCK_BYTES_MAX = 1024
_KNOWN_REQUEST_BYTES_MAX = 2048
_is_personal = re.compile(rb"^(?:cookie|(?:proxy-)?authorization):", re.IGNORECASE | re.MULTILINE).search


class RequestParser:
    """One per connection: feed() bytes until it returns a head, read the body, then call next_head().

    Parsing stops after each head and each body; the bytes of later requests stay buffered. After an HttpError the
    connection must be closed. The last header section is remembered, because the next request usually repeats it.
    """

    __slots__ = (
        "_alone",
        "_at",
        "_block",
        "_buffer",
        "_chunks",
        "_fields_max",
        "_head_bytes_max",
        "_left",
        "_minor",
        "_section",
    )

    def __init__(self, *, head_bytes_max: int = HEAD_BYTES_MAX, fields_max: int = FIELDS_MAX) -> None:
        self._head_bytes_max = head_bytes_max
        self._fields_max = fields_max
        self._buffer = b""
        self._at = 0
        self._alone = False
        self._left = 0
        self._chunks: ChunkedBody | None = None
        self._block = b""
        self._minor = b""
        self._section: RequestSection | None = None

    @property
    def buffered(self) -> bool:
        """Bytes of the next request are buffered; after next_head() returned None, the start of its head."""
        return self._at < len(self._buffer) and self.body_complete

    @property
    def body_complete(self) -> bool:
        """The body of the current request has been read completely."""
        return not self._left and self._chunks is None

    @property
    def whole_request(self) -> bytes:
        """The bytes of the last request, if nothing else arrived with them and they identify no user; else empty."""
        known = self._alone and (self._block, self._minor, self._fields_max) in _known_sections
        return self._buffer if known and len(self._buffer) <= _KNOWN_REQUEST_BYTES_MAX else b""

    def feed(self, data: bytes) -> RequestHead | None:
        """Add bytes from the client; returns the head of the next request once it is complete, like next_head()."""
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer = data
        self._at = 0
        self._alone = False
        return self.next_head()

    def next_head(self) -> RequestHead | None:
        """The head of the next request if it is complete, else None; the current one must have been read to its end.

        Raises HttpError 400, 414, 417, 431, 501 or 505, the same one no matter how the bytes were split.
        """
        assert self._chunks is None, "the body must be read first"
        assert not self._left, "the body must be read first"
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n\r\n", at, at + self._head_bytes_max)
        line = _request_line(buffer, at)
        if end < 0 or line is None or line.end() - at > REQUEST_LINE_BYTES_MAX + 2:
            return self._unready_head()
        method, target, minor = line.groups()
        block = buffer[line.end() : end + 2]
        section = self._section
        if section is None or block != self._block or minor != self._minor:
            section = _known_sections.get((block, minor, self._fields_max)) or self._read_section(block, minor)
            self._block, self._minor, self._section = block, minor, section
        if target[0] != 0x2F or method == b"CONNECT":
            _check_target(method, target)
        self._alone = not at and end + 4 == len(buffer)
        self._at = end + 4
        if section.framing is not Framing.NONE:
            self._begin_body(section)
        return RequestHead(method, target, _VERSIONS[minor], *section)

    def body(self, received: bytes = b"") -> bytes:
        """The available bytes of the current request's body, including those just `received`; b"" if more are needed.

        Raises HttpError 400 or 431 for invalid chunks or trailers; trailers are dropped.
        """
        buffer = self._buffer[self._at :] + received if received else self._buffer
        at = 0 if received else self._at
        if self._chunks is not None:
            data, at = self._chunks.take(buffer, at)
            if self._chunks.complete:
                self._chunks = None
        else:
            data = buffer[at : at + self._left]
            at += len(data)
            self._left -= len(data)
        if at == len(buffer):
            buffer, at = b"", 0
        self._buffer, self._at = buffer, at
        return data

    def _begin_body(self, section: RequestSection) -> None:
        self._left = section.content_length
        if section.framing is Framing.CHUNKED:
            self._chunks = ChunkedBody(trailer_bytes_max=self._head_bytes_max, trailers_max=self._fields_max)

    def _read_section(self, block: bytes, minor: bytes) -> RequestSection:
        lines = split_block(block)
        if lines is None or len(lines) > self._fields_max:
            self._check_lines()
            raise AssertionError("the block and its lines disagree")
        section = read_section(Fields(lines), _VERSIONS[minor])
        if len(block) <= _KNOWN_BLOCK_BYTES_MAX and not _is_personal(block):
            if len(_known_sections) >= _KNOWN_SECTIONS_MAX:
                _known_sections.clear()
            _known_sections[block, minor, self._fields_max] = section
        return section

    def _unready_head(self) -> RequestHead | None:
        """No complete head with a valid first line: empty lines after a body, an incomplete head, or an invalid one."""
        buffer, at = self._buffer, self._at
        while buffer.startswith(b"\r\n", at):  # RFC 9112 section 2.2: some clients send an extra CR LF after a body
            at += 2
        if at > self._at:
            self._at = at
            return self.next_head()
        self._check_lines()
        if len(buffer) - at >= self._head_bytes_max:
            raise HttpError(431, "request head too long")
        return None

    def _check_lines(self) -> None:
        """Check the available lines one by one; raises HttpError for the first invalid one."""
        head = self._buffer[self._at : self._at + self._head_bytes_max]
        if _may_begin(head) is None:
            raise HttpError(400, "invalid method")
        line_bytes_max = min(REQUEST_LINE_BYTES_MAX + 2, self._head_bytes_max)
        end = head.find(b"\n", 0, line_bytes_max) + 1
        if not end:
            if len(head) >= line_bytes_max:
                raise HttpError(414, "request line too long")
            return
        if _request_line(head) is None:
            if _is_other_version(head[:end]) is None:
                raise HttpError(400, "invalid request line")
            raise HttpError(505, "unsupported version: HTTP/1.0 and HTTP/1.1 only")
        for number, line in enumerate(head[end:].split(b"\n")[:-1]):
            if line == b"\r":
                return
            if number >= self._fields_max:
                raise HttpError(431, "too many header fields")
            if not is_field_line(line + b"\n"):
                raise HttpError(400, "invalid header field line")


def _check_target(method: bytes, target: bytes) -> None:
    """RFC 9112 section 3.2: the form of the target depends on the method; a path is valid for all but CONNECT."""
    absolute = match_http_url(target)
    if method == b"CONNECT":
        valid = is_authority(target) is not None and target.rpartition(b":")[2].isdigit()
    elif absolute is not None:
        valid = is_authority(absolute[2]) is not None and b"#" not in target
    else:
        valid = target == b"*" and method == b"OPTIONS"
    if not valid:
        raise HttpError(400, "invalid target for this method")
