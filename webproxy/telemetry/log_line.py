"""The line of the access log for a request. PURE.

A line has a part that is the same for each repetition of a request with the same answer, and is built once for a
request that is recognised by its bytes; the rest is the client, the time, durations and the request's id.

No value can end a line or a quoted part of it: what is not printable ASCII, quotes and backslashes are written as
`\\xHH`, as by nginx, in JSON as JSON demands. Nothing that is a credential by its place gets in: of the fields only
Referer and User-Agent, and no user or password of a URL. Queries stay. A line has at most LINE_BYTES_MAX bytes, so that
a pipe takes it whole; long values are cut.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Final, TypeAlias

from webproxy.telemetry.requests import RequestRecord

LINE_BYTES_MAX: Final = 4096
"""PIPE_BUF of Linux: a write of so many bytes to a pipe is not mixed with others (pipe(7))."""

_CUTS = ((2048, 600), (1024, 256), (256, 64))
"""How much of the target and of other values is written; the first that makes a line that is short enough counts."""
_FIXED_BYTES_MAX = LINE_BYTES_MAX - 512
_METHOD_MAX = 32
_CUT_MARK = b"..."

_escape = re.compile(rb"[^ !#-\[\]-~]").sub
_half_escape = re.compile(rb"\\(?:x[0-9A-F]?)?\Z").search
_hide_user = re.compile(rb"(\A|:/*)[^/?#\s]*@").sub


class LogFormat(StrEnum):
    """The format of a line."""

    COMMON = "common"
    COMBINED = "combined"
    EXTENDED = "extended"
    """Combined, with what the cache had to do with it, durations in microseconds and the id behind that."""
    JSON = "json"


FixedParts: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes]
"""What depends on the target, on the fields and the version, on the target's reply, on the fields, on the reply."""


def fixed_parts(form: LogFormat, record: RequestRecord, body_bytes: int) -> FixedParts:
    """What depends only on the request, its answer and its outcome, up to the end of the line or of the first part.

    Joined, it is that part of the line.
    """
    for target_max, value_max in _CUTS:
        if form is LogFormat.JSON:
            parts = _json_parts(record, body_bytes, target_max, value_max)
        else:
            parts = _text_parts(form, record, body_bytes, target_max, value_max)
        if sum(map(len, parts)) <= _FIXED_BYTES_MAX:
            break
    return parts


def whole_line(
    form: LogFormat,
    fixed: bytes,
    client: bytes,
    moment: bytes,
    request_id: bytes,
    total_ns: int,
    first_byte_ns: int,
    upstream_ns: int,
) -> bytes:
    """The line, with its end; `moment` as from moment_text(). Durations of 0 are none."""
    if form is LogFormat.JSON:
        return b'{"time":"%s","client":"%s","id":"%s","time_us":%d,"first_byte_us":%s,"upstream_us":%s,%s' % (
            moment,
            client,
            request_id,
            total_ns // 1000,
            b"%d" % (first_byte_ns // 1000) if first_byte_ns else b"null",
            b"%d" % (upstream_ns // 1000) if upstream_ns else b"null",
            fixed,
        )
    line = b"%s - - [%s] %s" % (client or b"-", moment, fixed)
    if form is not LogFormat.EXTENDED:
        return line
    return b"%s time_us=%d first_byte_us=%s upstream_us=%s id=%s\n" % (
        line,
        total_ns // 1000,
        b"%d" % (first_byte_ns // 1000) if first_byte_ns else b"-",
        b"%d" % (upstream_ns // 1000) if upstream_ns else b"-",
        request_id,
    )


def _text_parts(form: LogFormat, record: RequestRecord, body_bytes: int, target_max: int, value_max: int) -> FixedParts:
    target, protocol = b'"-', b""
    if record.method:
        method = escaped(record.method, _METHOD_MAX)
        target = b'"%s %s ' % (method, escaped(_without_user(record.target), target_max))
        protocol = record.protocol
    answer = b'" %d %s' % (record.status, b"%d" % body_bytes if body_bytes else b"-")
    if form is LogFormat.COMMON:
        return target, protocol, answer, b"", b"\n"
    fields = b' "%s" "%s"' % tuple(escaped(value or b"-", value_max) for value in _told_of_itself(record))
    if form is LogFormat.COMBINED:
        return target, protocol, answer, fields, b"\n"
    outcome, origin = record.outcome.replace(" ", "_").encode(), escaped(record.origin.encode(), value_max)
    end = b" cache=%s outcome=%s origin=%s" % (record.cache.encode(), outcome, origin or b"-")
    return target, protocol, answer, fields, end


def _json_parts(record: RequestRecord, body_bytes: int, target_max: int, value_max: int) -> FixedParts:
    referer, user_agent = _told_of_itself(record)
    groups: tuple[dict[str, object], ...] = (
        {
            "method": _text(record.method, _METHOD_MAX),
            "target": _text(_without_user(record.target), target_max),
        },
        {"protocol": _text(record.protocol, _METHOD_MAX)},
        {"status": record.status, "bytes": body_bytes},
        {"referer": _text(referer, value_max), "user_agent": _text(user_agent, value_max)},
        {"cache": record.cache.value, "outcome": record.outcome, "origin": record.origin[:value_max] or None},
    )
    inner = [json.dumps(group, separators=(",", ":"))[1:-1].encode() for group in groups]
    return inner[0] + b",", inner[1] + b",", inner[2] + b",", inner[3] + b",", inner[4] + b"}\n"


def line_template(form: LogFormat) -> tuple[bytes | str, ...]:
    """A line of whole_line() for a hit, as bytes, and letters for what is to be put between them.

    c or C: the client, or a dash or nothing; m or M: the moment, in seconds or milliseconds; u: microseconds; i: the
    id; 0, a, 1, b, 2: the fixed parts.
    """
    fixed = "0", "a", "1", "b", "2"
    if form is LogFormat.JSON:
        times = b'","time_us":', "u", b',"first_byte_us":', "u", b',"upstream_us":null,'
        return (b'{"time":"', "M", b'","client":"', "C", b'","id":"', "i", *times, *fixed)
    line = "c", b" - - [", "m", b"] ", *fixed
    if form is not LogFormat.EXTENDED:
        return line
    return (*line, b" time_us=", "u", b" first_byte_us=", "u", b" upstream_us=- id=", "i", b"\n")


def _told_of_itself(record: RequestRecord) -> tuple[bytes | None, bytes | None]:
    """The fields Referer and User-Agent."""
    fields = record.fields
    if fields is None:
        return None, None
    referer = fields.get(b"referer")
    return None if referer is None else _without_user(referer), fields.get(b"user-agent")


def _without_user(url: bytes) -> bytes:
    """A URL, or the target of a request, without a user and a password: a path cannot have them."""
    return url if b"@" not in url or url.startswith(b"/") else _hide_user(rb"\1***@", url)


def escaped(value: bytes, limit: int) -> bytes:
    r"""At most `limit` bytes of a value, and a mark if it is cut; what is not printable as `\xHH`."""
    text = _escape(lambda match: b"\\x%02X" % match[0][0], value[: limit + 1])
    if len(text) <= limit:
        return text
    text = text[:limit]
    half = _half_escape(text)
    return (text if half is None else text[: half.start()]) + _CUT_MARK


def _text(value: bytes | None, limit: int) -> str | None:
    """The same for JSON, whose writer escapes; None for a value that is empty or not there."""
    if not value:
        return None
    text = value[:limit].decode("utf-8", "backslashreplace")
    return text if len(value) <= limit else text + _CUT_MARK.decode()


def moment_text(form: LogFormat, moment: tuple[int, ...]) -> bytes:
    """A second in UTC (the first six items of a struct_time), as the format has it; JSON without its end."""
    year, month, day, hour, minute, second = moment[:6]
    if form is LogFormat.JSON:
        return b"%04d-%02d-%02dT%02d:%02d:%02d" % (year, month, day, hour, minute, second)
    return b"%02d/%s/%04d:%02d:%02d:%02d +0000" % (day, _MONTHS[month - 1], year, hour, minute, second)


_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
