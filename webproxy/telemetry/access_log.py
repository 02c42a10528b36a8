"""AccessLog: writes a line for each request that has ended, whatever its end; an observer of requests.

A hit on a complete reply of the hot table is logged by hit(), from a part that was made once: the rest is the client's
address, the time, which is formatted once a second, and one write.
"""

from __future__ import annotations

from time import gmtime, time

from webproxy.http.messages import RequestHead
from webproxy.telemetry.line_file import LineFile
from webproxy.telemetry.log_line import FixedParts, LogFormat, fixed_parts, line_template, moment_text, whole_line
from webproxy.telemetry.request_ids import RequestIds
from webproxy.telemetry.requests import CacheResult, RequestRecord


class AccessLog:
    """Thread-safe. `file` belongs to whoever made it; its thread makes the lines."""

    def __init__(self, form: LogFormat, file: LineFile, ids: RequestIds) -> None:
        self.file = file
        self._form = form
        self._is_json = form is LogFormat.JSON
        self._add = file.add
        self._next_id = ids.next
        self._second, self._moment_text = 0, b""
        has_times = form in (LogFormat.EXTENDED, LogFormat.JSON)
        self._line_of_hit = self._long_line_of_hit if has_times else self._short_line_of_hit

    def ended(self, record: RequestRecord) -> None:
        """As RequestObserver.ended()."""
        self._add((self._line_of_record, (record, time())))

    def hit_parts(self, request: RequestHead, status: int, body_bytes: int, origin: str) -> FixedParts:
        """What hit() needs of a request and its reply, joined; the same for each request of the same bytes."""
        record = RequestRecord(
            request.method, request.target, b"HTTP/%d.%d" % request.version, request.fields, origin=origin
        )
        record.status, record.cache, record.outcome = status, CacheResult.HIT, "hit"
        return fixed_parts(self._form, record, body_bytes)

    def hit(self, part: bytes, client: bytes, took_ns: int, request_id: bytes = b"") -> None:
        """A request was answered at once; it gets an id if lines have these and it has none."""
        self._add((self._line_of_hit, (part, client, time(), took_ns, request_id)))

    @property
    def template(self) -> tuple[bytes | str, ...]:
        """The line of a hit, as line_template()."""
        return line_template(self._form)

    # -- in the file's thread ------------------------------------------------------------------------------------
    def _line_of_record(self, record: RequestRecord, now: float) -> bytes:
        return whole_line(
            self._form,
            b"".join(fixed_parts(self._form, record, record.body_bytes)),
            record.client,
            self._moment(now),
            record.request_id,
            record.total_ns,
            record.until_first_byte_ns,
            record.upstream_ns,
        )

    def _long_line_of_hit(self, part: bytes, client: bytes, now: float, total_ns: int, request_id: bytes) -> bytes:
        moment, request_id = self._moment(now), request_id or self._next_id()
        return whole_line(self._form, part, client, moment, request_id, total_ns, total_ns, 0)

    def _short_line_of_hit(self, part: bytes, client: bytes, now: float, _total_ns: int, _id: bytes) -> bytes:
        return b"%s - - [%s] %s" % (client or b"-", self._moment(now), part)

    def _moment(self, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second, self._moment_text = second, moment_text(self._form, gmtime(second))
        return b"%s.%03dZ" % (self._moment_text, int(now * 1000) % 1000) if self._is_json else self._moment_text
