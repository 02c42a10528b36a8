"""PURE: the heads of responses to HTTP clients: framing, persistence, Via, Cache-Status."""

from __future__ import annotations

from typing import NamedTuple

from webproxy.caching.cache_status import cache_status
from webproxy.caching.hop_by_hop import end_to_end
from webproxy.caching.partial import part_fields
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validators import not_modified_fields
from webproxy.http.dates import format_http_date
from webproxy.http.messages import REASONS, RequestHead
from webproxy.http.ranges import content_range, unsatisfied_range
from webproxy.http.syntax import BODILESS_STATUSES
from webproxy.origin.response_head import OriginResponse


class Connection(NamedTuple):
    """What the response says about the connection: it closes, or an old client is told that it does not."""

    closes: bool
    line: bytes
    """The field with its line end, or nothing; and what else each response of the request says, in lines."""

    def closing(self) -> Connection:
        """The same for a response after which it closes."""
        return self if self.closes else Connection(True, CLOSES.line + self.line.removeprefix(STAYS_AND_SAYS_SO.line))

    def saying(self, line: bytes) -> Connection:
        """The same with another line."""
        return Connection(self.closes, self.line + line)


STAYS = Connection(closes=False, line=b"")
STAYS_AND_SAYS_SO = Connection(closes=False, line=b"Connection: keep-alive\r\n")
CLOSES = Connection(closes=True, line=b"Connection: close\r\n")


def connection_for(request: RequestHead, *, may_stay: bool) -> Connection:
    """Whether the connection persists after this request (RFC 9112 section 9.3)."""
    if not (may_stay and request.keep_alive):
        return CLOSES
    return STAYS if request.version == (1, 1) else STAYS_AND_SAYS_SO


def body_framing(request: RequestHead, response: OriginResponse, connection: Connection) -> tuple[bytes, Connection]:
    """The lines that frame a forwarded body, and whether the connection persists (RFC 9112 section 6.3).

    A body of unknown length is chunked, or for an HTTP/1.0 client delimited by the end of the connection.
    """
    if request.method == b"HEAD" or response.status in BODILESS_STATUSES:
        return b"", connection
    if response.length is not None:
        return b"Content-Length: %d\r\n" % response.length, connection
    if request.version == (1, 1):
        return b"Transfer-Encoding: chunked\r\n", connection
    return b"", connection.closing()


def hit_frame(stored: StoredResponse) -> tuple[bytes, bytes]:
    """The head of a hit up to its age, and what follows the lines about the connection; neither ever changes."""
    length = b"Content-Length: %d\r\n" % stored.body_bytes if stored.status != 204 else b""
    reason = stored.reason or REASONS.get(stored.status, b"")
    return b"HTTP/1.1 %d %s\r\n%s" % (stored.status, reason, stored.fields.block), length + b"\r\n"


class ResponseHeads:
    """Builds heads under one name, which is used in Via and Cache-Status."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._via_line = b"Via: 1.1 " + name + b"\r\n"
        said = name.replace(b"%", b"%%")
        self._hit_tail = b"Age: %d\r\nCache-Status: " + said + b"; hit; ttl=%d\r\nVia: 1.1 " + said + b"\r\n"
        self.hit_tail_parts = b"Age: ", b"\r\nCache-Status: " + name + b"; hit; ttl=", b"\r\n" + self._via_line
        """What stands before and behind the age and the remaining lifetime in the head of a hit."""

    def status(self, **said: object) -> bytes:
        """A Cache-Status value."""
        return cache_status(self._name, **said)  # type: ignore[arg-type]

    # -- of stored responses -------------------------------------------------------------------------------------
    def hit(self, stored: StoredResponse, age_s: int, connection: Connection, status: bytes | None = None) -> bytes:
        """The head of a complete stored response; a 204 has no length (RFC 9110 section 8.6)."""
        head, end = hit_frame(stored)
        return b"%s%s%s%s" % (head, self._tail(stored, age_s, status), connection.line, end)

    def _tail(self, stored: StoredResponse, age_s: int, status: bytes | None) -> bytes:
        if status is None:
            return self._hit_tail % (age_s, stored.lifetime_s - age_s)
        return b"Age: %d\r\nCache-Status: %s\r\n%s" % (age_s, status, self._via_line)

    def not_modified(self, stored: StoredResponse, age_s: int, connection: Connection, status: bytes | None) -> bytes:
        """304: the client's copy is still valid."""
        block = not_modified_fields(stored.fields).block
        return b"HTTP/1.1 304 Not Modified\r\n%s%s%s\r\n" % (block, self._tail(stored, age_s, status), connection.line)

    def part(
        self, stored: StoredResponse, age_s: int, connection: Connection, status: bytes | None, first: int, end: int
    ) -> bytes:
        """206 with one range."""
        return b"HTTP/1.1 206 Partial Content\r\n%s%s%sContent-Range: %s\r\nContent-Length: %d\r\n\r\n" % (
            part_fields(stored.fields).block,
            self._tail(stored, age_s, status),
            connection.line,
            content_range(first, end, stored.body_bytes),
            end - first,
        )

    def parts(
        self,
        stored: StoredResponse,
        age_s: int,
        connection: Connection,
        status: bytes | None,
        boundary: bytes,
        length: int,
    ) -> bytes:
        """206 with several ranges, `length` bytes including their framing."""
        return b"HTTP/1.1 206 Partial Content\r\n%s%s%s%sContent-Length: %d\r\n\r\n" % (
            part_fields(stored.fields).without((b"content-type",)).block,
            self._tail(stored, age_s, status),
            connection.line,
            b"Content-Type: multipart/byteranges; boundary=%s\r\n" % boundary,
            length,
        )

    def unsatisfiable(
        self, stored: StoredResponse, age_s: int, connection: Connection, status: bytes | None, now: float
    ) -> bytes:
        """416, whole."""
        said = b"Content-Range: %s\r\nCache-Status: %s\r\n" % (
            unsatisfied_range(stored.body_bytes),
            status or self.status(hit=True, ttl=stored.lifetime_s - age_s),
        )
        return self.local(416, connection, now, "range not satisfiable", said)

    # -- of an origin's answers ----------------------------------------------------------------------------------
    def forwarded(
        self, response: OriginResponse, connection: Connection, status: bytes, framing: bytes, now: float
    ) -> bytes:
        """The head of an origin's response as forwarded; `framing` are the lines that frame its body."""
        fields = end_to_end(response.fields)
        if framing or response.status == 204:  # a response to HEAD and a 304 keep the length of the body they omit
            fields = fields.without((b"content-length",))
        dated = b"" if b"date" in fields else b"Date: %s\r\n" % format_http_date(int(now))
        return b"HTTP/1.1 %d %s\r\n%s%sCache-Status: %s\r\n%s%s%s\r\n" % (
            response.status,
            response.reason or REASONS.get(response.status, b""),
            fields.block,
            dated,
            status,
            b"Via: %s %s\r\n" % (response.http_version, self._name),
            connection.line,
            framing,
        )

    # -- of our own ----------------------------------------------------------------------------------------------
    def local(
        self,
        status: int,
        connection: Connection,
        now: float,
        text: str = "",
        fields: bytes = b"",
        *,
        with_body: bool = True,
    ) -> bytes:
        """A complete response of the proxy's own, with one line of text or none; `fields` are further lines.

        Without the body it answers a HEAD.
        """
        body = text.encode() + b"\n" if text else b""
        return b"HTTP/1.1 %d %s\r\nDate: %s\r\n%s%s%sContent-Length: %d\r\n\r\n%s" % (
            status,
            REASONS[status],
            format_http_date(int(now)),
            fields,
            b"Content-Type: text/plain; charset=utf-8\r\n" if text else b"",
            connection.line,
            len(body),
            body if with_body else b"",
        )
