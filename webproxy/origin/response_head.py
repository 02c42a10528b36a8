"""PURE: header lines from libcurl → the heads of a response, strictly parsed, and its trailers.

libcurl has split and unfolded the lines (RFC 9112 section 5.2) but is lenient. A response whose end is ambiguous is
refused, because a cache would serve the wrong part to others (RFC 9112 section 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from webproxy.errors import OriginBadReply, OriginTooLarge
from webproxy.http.fields import Field, Fields
from webproxy.http.syntax import BLANKS, BODILESS_STATUSES, FRAMING_FIELDS, LENGTH_MAX, TOKEN, is_line_text, is_token

HEADER_BYTES_MAX = 65_536
FIELDS_MAX = 256
_LENGTH_DIGITS_MAX = 19

_match_status = re.compile(rb"HTTP/([0-9](?:\.[0-9])?) ([1-9][0-9]{2})(?: ([^\0\r\n]*))?").fullmatch
_is_plain_block = re.compile(rb"(?:%s:[^\0\r\n]*+\r\n)*" % TOKEN).fullmatch
# Elsewhere Content-Range has no meaning (RFC 9110 section 14.4); beside one of ours a client could take it for that.
_WITH_CONTENT_RANGE = frozenset((206, 416))
_NO_FIELDS = Fields()


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginResponse:
    """The head of a response; `fields` as received, in order."""

    status: int
    fields: Fields
    length: int | None = None
    """Length of the body that follows: 0 if there can be none, None if the origin did not say."""
    reason: bytes = b""
    http_version: bytes = b"1.1"
    """In the notation of Via (RFC 9110 section 7.6.3)."""
    trailers: Fields = _NO_FIELDS
    """Known only after the body."""


class HeadReader:
    """The lines of one exchange: any number of interim heads (1xx), the final one, trailers."""

    def __init__(self, url: str, method: bytes) -> None:
        """`url` is named in exceptions; the method determines whether a body can follow."""
        self._url = url
        self._method = method
        self._bytes = 0
        self._status_line: tuple[bytes, int, bytes] | None = None
        self._lines: list[Field] = []
        self._ended = False

    def take(self, line: bytes) -> OriginResponse | None:
        """The next line, with its line end; returns the head that it completes, interim or final.

        Raises:
            OriginBadReply: not HTTP, or ambiguous framing.
            OriginTooLarge: the length exceeds the maximum of a file.
        """
        self._bytes += len(line)
        self._check_size()
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if self._status_line is None and not self._ended:
            self._status_line = self._read_status(line)
        elif line:
            self._add_field(line)
        elif not self._ended:
            return self._end_head()
        return None

    def take_all(self, lines: Sequence[bytes]) -> OriginResponse | None:
        """As take() for each of the lines, of which the last one ends a head, if any does; errors as there.

        The field lines of an ordinary head are checked together, which costs a tenth.
        """
        block = b"".join(lines[1:-1])
        is_head = self._status_line is None and not self._ended and len(lines) > 1
        if is_head and lines[-1] == b"\r\n" and len(lines) - 2 <= FIELDS_MAX and _is_plain_block(block) is not None:
            self._bytes += len(lines[0]) + len(block) + 2
            self._check_size()
            self._status_line = self._read_status(lines[0].removesuffix(b"\n").removesuffix(b"\r"))
            for line in lines[1:-1]:
                name, _, value = line.partition(b":")
                self._lines.append((name, value[:-2].strip(BLANKS)))
            return self._end_head()
        found = None
        for line in lines:
            found = self.take(line)
        return found

    @property
    def trailers(self) -> Fields:
        """The fields after the final head's body (RFC 9110 section 6.5)."""
        return Fields(self._lines) if self._ended else _NO_FIELDS

    def _check_size(self) -> None:
        if self._bytes > HEADER_BYTES_MAX:
            raise self._bad(f"a header of more than {HEADER_BYTES_MAX} bytes")

    def _read_status(self, line: bytes) -> tuple[bytes, int, bytes]:
        found = _match_status(line)
        if found is None:
            raise self._bad(f"{line[:80]!r} is not a status line")
        return found[1], int(found[2]), (found[3] or b"").strip(BLANKS)

    def _add_field(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        plain = name.rstrip(BLANKS)
        # A blank before the colon has to be removed from a response (RFC 9112 section 5.1), but libcurl takes no
        # framing from such a line.
        doubtful = plain != name and plain.lower() in FRAMING_FIELDS
        if not colon or not is_token(plain) or not is_line_text(value) or doubtful:
            raise self._bad(f"{line[:80]!r} is not a field line")
        if len(self._lines) == FIELDS_MAX:
            raise self._bad(f"more than {FIELDS_MAX} fields")
        self._lines.append((plain, value.strip(BLANKS)))

    def _end_head(self) -> OriginResponse:
        assert self._status_line is not None
        version, status, reason = self._status_line
        fields = Fields(self._lines)
        self._status_line, self._lines = None, []
        if status == 101:
            raise self._bad("unsolicited protocol switch")
        self._ended = status >= 200
        if not self._ended:  # these have no body, whatever their fields say (RFC 9110 section 8.6)
            return OriginResponse(
                status=status, fields=fields.without(FRAMING_FIELDS), length=0, reason=reason, http_version=version
            )
        coded = self._is_chunked(fields, version)
        length = None if coded else self._declared_length(fields)
        if coded:  # it overrides a length, which must then not be passed on (RFC 9112 section 6.3)
            fields = fields.without((b"content-length",))
        if self._method == b"HEAD" or status in BODILESS_STATUSES:
            length = 0
        if status not in _WITH_CONTENT_RANGE and self._method in (b"GET", b"HEAD"):
            fields = fields.without((b"content-range",))
        return OriginResponse(status=status, fields=fields, length=length, reason=reason, http_version=version)

    def _is_chunked(self, fields: Fields, version: bytes) -> bool:
        """Whether the body is chunked; no other coding was requested, and HTTP/1.0 has none (RFC 9112 section 6.1)."""
        codings = fields.get_all(b"transfer-encoding")
        if not codings:
            return False
        if version == b"1.0" or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise self._bad(f"the transfer coding {b', '.join(codings)[:80]!r} in HTTP/{version.decode()}")
        return True

    def _declared_length(self, fields: Fields) -> int | None:
        values = fields.get_all(b"content-length")
        if not values:
            return None
        first = values[0]
        if not first.isdigit() or any(value != first for value in values):
            raise self._bad(f"no clear length: {b', '.join(values)[:80]!r}")
        if len(first) > _LENGTH_DIGITS_MAX or int(first) > LENGTH_MAX:
            raise OriginTooLarge(f"{self._url}: {first[:32].decode()} bytes")
        return int(first)

    def _bad(self, text: str) -> OriginBadReply:
        return OriginBadReply(f"{self._url}: {text}")
