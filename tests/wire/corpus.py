"""The wire corpus: bytes and what must come of them, named by the rule they stand for.

`decided_at` is the number of bytes at which the rule is broken: not earlier, and at the latest there, is it refused.
"""

from dataclasses import dataclass

from webproxy.getfile import LENGTH_MAX, PATH_BYTES_MAX, Reply, Status, Violation, Wire

_LONGEST_PATH = b"/" + b"p" * (PATH_BYTES_MAX - 1)
_REQUEST_HEAD = len(b"GETFILE GET ")


@dataclass(frozen=True)
class RequestCase:
    name: str
    data: bytes
    path: bytes | None = None
    violation: Violation | None = None
    decided_at: int = 0


VALID_REQUESTS = [
    RequestCase("plain", b"GETFILE GET /a/b.bin\r\n\r\n", path=b"/a/b.bin"),
    RequestCase("root-only", b"GETFILE GET /\r\n\r\n", path=b"/"),
    RequestCase("query-and-escapes", b"GETFILE GET /a%20b?x=1&y=~\r\n\r\n", path=b"/a%20b?x=1&y=~"),
    RequestCase("utf-8", "GETFILE GET /über\r\n\r\n".encode(), path="/über".encode()),
    RequestCase(
        "every-high-byte", b"GETFILE GET /" + bytes(range(0x80, 0x100)) + b"\r\n\r\n", b"/" + bytes(range(0x80, 0x100))
    ),
    RequestCase(
        "every-visible-byte", b"GETFILE GET /" + bytes(range(0x21, 0x7F)) + b"\r\n\r\n", b"/" + bytes(range(0x21, 0x7F))
    ),
    RequestCase("looks-like-a-request", b"GETFILE GET /GETFILE\r\n\r\n", path=b"/GETFILE"),
    RequestCase("path-of-4096-bytes", b"GETFILE GET " + _LONGEST_PATH + b"\r\n\r\n", path=_LONGEST_PATH),
]

INCOMPLETE_REQUESTS = [
    RequestCase("nothing", b""),
    RequestCase("half-the-scheme", b"GETF"),
    RequestCase("no-path-yet", b"GETFILE GET "),
    RequestCase("half-the-path", b"GETFILE GET /fol"),
    RequestCase("half-the-terminator", b"GETFILE GET /folder\r\n\r"),
    RequestCase("longest-path-without-terminator", b"GETFILE GET " + _LONGEST_PATH),
]

INVALID_REQUESTS = [
    RequestCase("scheme-wrong-first-letter", b"HETFILE GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 1),
    RequestCase("scheme-wrong-last-letter", b"GETFILF GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 7),
    RequestCase("scheme-lower-case", b"getfile GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 1),
    RequestCase("scheme-too-long", b"GETFILES GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 8),
    RequestCase("http-request", b"GET / HTTP/1.1\r\n\r\n", None, Violation.BAD_SCHEME, 4),
    RequestCase("leading-space", b" GETFILE GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 1),
    RequestCase("leading-line-end", b"\r\nGETFILE GET /a\r\n\r\n", None, Violation.BAD_SCHEME, 1),
    RequestCase("scheme-then-line-end", b"GETFILE\r\n\r\n", None, Violation.BAD_SCHEME, 8),
    RequestCase("tab-after-scheme", b"GETFILE\tGET /a\r\n\r\n", None, Violation.BAD_SCHEME, 8),
    RequestCase("method-wrong-letter", b"GETFILE GOT /a\r\n\r\n", None, Violation.BAD_METHOD, 10),
    RequestCase("method-lower-case", b"GETFILE get /a\r\n\r\n", None, Violation.BAD_METHOD, 9),
    RequestCase("method-too-long", b"GETFILE GETS /a\r\n\r\n", None, Violation.BAD_METHOD, 12),
    RequestCase("method-put", b"GETFILE PUT /a\r\n\r\n", None, Violation.BAD_METHOD, 9),
    RequestCase("double-space-before-method", b"GETFILE  GET /a\r\n\r\n", None, Violation.BAD_METHOD, 9),
    RequestCase("double-space-before-path", b"GETFILE GET  /a\r\n\r\n", None, Violation.BAD_PATH, 13),
    RequestCase("no-slash", b"GETFILE GET a\r\n\r\n", None, Violation.BAD_PATH, 13),
    RequestCase("no-path", b"GETFILE GET \r\n\r\n", None, Violation.BAD_PATH, 13),
    RequestCase("space-before-terminator", b"GETFILE GET /a \r\n\r\n", None, Violation.BAD_PATH, 15),
    RequestCase("extra-token", b"GETFILE GET /a b\r\n\r\n", None, Violation.BAD_PATH, 15),
    RequestCase("tab-in-path", b"GETFILE GET /a\tb\r\n\r\n", None, Violation.BAD_PATH, 15),
    RequestCase("nul-in-path", b"GETFILE GET /a\0b\r\n\r\n", None, Violation.BAD_PATH, 15),
    RequestCase("del-in-path", b"GETFILE GET /a\x7fb\r\n\r\n", None, Violation.BAD_PATH, 15),
    RequestCase("lone-lf", b"GETFILE GET /a\n\n", None, Violation.BAD_TERMINATOR, 15),
    RequestCase("lone-cr", b"GETFILE GET /a\r\r\n\n", None, Violation.BAD_TERMINATOR, 16),
    RequestCase("cr-in-path", b"GETFILE GET /a\rb\r\n\r\n", None, Violation.BAD_TERMINATOR, 16),
    RequestCase("one-line-end-then-field", b"GETFILE GET /a\r\nHost: x\r\n\r\n", None, Violation.BAD_TERMINATOR, 17),
    RequestCase("second-line-end-without-cr", b"GETFILE GET /a\r\n\n", None, Violation.BAD_TERMINATOR, 17),
    RequestCase("bytes-after-terminator", b"GETFILE GET /a\r\n\r\nX", None, Violation.EXCESS_BYTES, 19),
    RequestCase("second-request", b"GETFILE GET /a\r\n\r\n" * 2, None, Violation.EXCESS_BYTES, 19),
    RequestCase(
        "path-of-4097-bytes",
        b"GETFILE GET " + _LONGEST_PATH + b"p\r\n\r\n",
        None,
        Violation.PATH_TOO_LONG,
        _REQUEST_HEAD + PATH_BYTES_MAX + 1,
    ),
    RequestCase(
        "endless-path",
        b"GETFILE GET /" + b"p" * 9000,
        None,
        Violation.PATH_TOO_LONG,
        _REQUEST_HEAD + PATH_BYTES_MAX + 1,
    ),
]


@dataclass(frozen=True)
class ReplyCase:
    name: str
    data: bytes
    reply: Reply | None = None
    rest: bytes = b""
    violation: Violation | None = None
    decided_at: int = 0


def _ok(length: int, wire: Wire = Wire.CRLF) -> Reply:
    return Reply(Status.OK, length, wire)


def _refused(status: Status, wire: Wire = Wire.CRLF) -> Reply:
    return Reply(status, 0, wire)


VALID_REPLIES = [
    ReplyCase("ok", b"GETFILE OK 5\r\n\r\nhello", _ok(5), b"hello"),
    ReplyCase("ok-empty", b"GETFILE OK 0\r\n\r\n", _ok(0)),
    ReplyCase("ok-content-like-a-line-end", b"GETFILE OK 2\r\n\r\n\r\n", _ok(2), b"\r\n"),
    ReplyCase("ok-more-than-4-gib", b"GETFILE OK 4294967297\r\n\r\nx", _ok(2**32 + 1), b"x"),
    ReplyCase("ok-largest-length", b"GETFILE OK %d\r\n\r\n" % LENGTH_MAX, _ok(LENGTH_MAX)),
    ReplyCase("ok-leading-zeros", b"GETFILE OK 0042\r\n\r\n", _ok(42)),
    ReplyCase("not-found", b"GETFILE FILE_NOT_FOUND\r\n\r\n", _refused(Status.FILE_NOT_FOUND)),
    ReplyCase("error", b"GETFILE ERROR\r\n\r\n", _refused(Status.ERROR)),
    ReplyCase("invalid", b"GETFILE INVALID\r\n\r\n", _refused(Status.INVALID)),
    ReplyCase("refusal-and-more", b"GETFILE ERROR\r\n\r\noops", _refused(Status.ERROR), b"oops"),
    ReplyCase("space-ok", b"GETFILE OK 5 hello", _ok(5, Wire.SPACE), b"hello"),
    ReplyCase("space-ok-empty", b"GETFILE OK 0 ", _ok(0, Wire.SPACE)),
    ReplyCase("space-ok-content-like-a-terminator", b"GETFILE OK 4 \r\n\r\n", _ok(4, Wire.SPACE), b"\r\n\r\n"),
    ReplyCase("space-ok-content-starts-with-a-space", b"GETFILE OK 2  x", _ok(2, Wire.SPACE), b" x"),
    ReplyCase("space-ok-largest-length", b"GETFILE OK %d " % LENGTH_MAX, _ok(LENGTH_MAX, Wire.SPACE)),
    ReplyCase("space-not-found", b"GETFILE FILE_NOT_FOUND 0\n", _refused(Status.FILE_NOT_FOUND, Wire.SPACE)),
    ReplyCase("space-error", b"GETFILE ERROR 0\n", _refused(Status.ERROR, Wire.SPACE)),
    ReplyCase("space-invalid", b"GETFILE INVALID 0\n", _refused(Status.INVALID, Wire.SPACE)),
]

UNFINISHED_REPLIES = [
    ReplyCase("nothing", b"", violation=Violation.EMPTY_REPLY),
    ReplyCase("half-the-scheme", b"GET", violation=Violation.INCOMPLETE_HEADER),
    ReplyCase("half-the-status", b"GETFILE FILE_NOT", violation=Violation.INCOMPLETE_HEADER),
    ReplyCase("status-alone", b"GETFILE OK", violation=Violation.INCOMPLETE_HEADER),
    ReplyCase("half-the-length", b"GETFILE OK 12", violation=Violation.INCOMPLETE_HEADER),
    ReplyCase("half-the-terminator", b"GETFILE OK 12\r\n\r", violation=Violation.INCOMPLETE_HEADER),
    ReplyCase("half-the-space-refusal", b"GETFILE ERROR 0", violation=Violation.INCOMPLETE_HEADER),
]

INVALID_REPLIES = [
    ReplyCase("scheme-wrong-letter", b"GETFIRE OK 5\r\n\r\nhello", None, b"", Violation.BAD_SCHEME, 6),
    ReplyCase("scheme-lower-case", b"getfile OK 5\r\n\r\nhello", None, b"", Violation.BAD_SCHEME, 1),
    ReplyCase("http-reply", b"HTTP/1.1 200 OK\r\n\r\n", None, b"", Violation.BAD_SCHEME, 1),
    ReplyCase("scheme-alone", b"GETFILE\r\n\r\n", None, b"", Violation.BAD_SCHEME, 8),
    ReplyCase("unknown-status", b"GETFILE MAYBE 5\r\n\r\n", None, b"", Violation.UNKNOWN_STATUS, 9),
    ReplyCase("status-lower-case", b"GETFILE ok 5\r\n\r\n", None, b"", Violation.UNKNOWN_STATUS, 9),
    ReplyCase("status-too-long", b"GETFILE OKAY 5\r\n\r\n", None, b"", Violation.UNKNOWN_STATUS, 11),
    ReplyCase("status-cut", b"GETFILE FILE_NOT 0\n", None, b"", Violation.UNKNOWN_STATUS, 17),
    ReplyCase("status-missing", b"GETFILE \r\n\r\n", None, b"", Violation.UNKNOWN_STATUS, 9),
    ReplyCase("double-space-before-status", b"GETFILE  OK 5\r\n\r\n", None, b"", Violation.UNKNOWN_STATUS, 9),
    ReplyCase("length-missing", b"GETFILE OK\r\n\r\n", None, b"", Violation.MISSING_LENGTH, 11),
    ReplyCase("length-missing-after-space", b"GETFILE OK \r\n\r\n", None, b"", Violation.MISSING_LENGTH, 12),
    ReplyCase("double-space-before-length", b"GETFILE OK  5\r\n\r\n", None, b"", Violation.MISSING_LENGTH, 12),
    ReplyCase("length-negative", b"GETFILE OK -5\r\n\r\n", None, b"", Violation.NEGATIVE_LENGTH, 12),
    ReplyCase("length-signed", b"GETFILE OK +5\r\n\r\n", None, b"", Violation.ALPHABETIC_LENGTH, 12),
    ReplyCase("length-alphabetic", b"GETFILE OK five\r\n\r\n", None, b"", Violation.ALPHABETIC_LENGTH, 12),
    ReplyCase("length-hexadecimal", b"GETFILE OK 0x5\r\n\r\n", None, b"", Violation.ALPHABETIC_LENGTH, 13),
    ReplyCase("length-fraction", b"GETFILE OK 5.0\r\n\r\n", None, b"", Violation.ALPHABETIC_LENGTH, 13),
    ReplyCase("length-of-2-to-the-64", b"GETFILE OK %d\r\n\r\n" % 2**64, None, b"", Violation.LENGTH_TOO_LARGE, 31),
    ReplyCase("length-of-21-digits", b"GETFILE OK 1%020d\r\n\r\n" % 0, None, b"", Violation.LENGTH_TOO_LARGE, 32),
    ReplyCase("length-of-endless-zeros", b"GETFILE OK " + b"0" * 99, None, b"", Violation.HEADER_TOO_LONG, 32),
    ReplyCase("length-then-lone-lf", b"GETFILE OK 5\nhello", None, b"", Violation.BAD_TERMINATOR, 13),
    ReplyCase("length-then-lone-cr", b"GETFILE OK 5\rhello", None, b"", Violation.BAD_TERMINATOR, 14),
    ReplyCase("one-line-end", b"GETFILE OK 5\r\nhello", None, b"", Violation.BAD_TERMINATOR, 15),
    ReplyCase("not-found-with-length", b"GETFILE FILE_NOT_FOUND 0\r\n\r\n", None, b"", Violation.UNEXPECTED_LENGTH, 25),
    ReplyCase("error-with-length", b"GETFILE ERROR 12\r\n\r\n", None, b"", Violation.UNEXPECTED_LENGTH, 15),
    ReplyCase("invalid-with-length", b"GETFILE INVALID 5 hello", None, b"", Violation.UNEXPECTED_LENGTH, 17),
    ReplyCase("space-refusal-with-two-digits", b"GETFILE ERROR 00\n", None, b"", Violation.UNEXPECTED_LENGTH, 16),
    ReplyCase("refusal-then-lone-lf", b"GETFILE ERROR\n", None, b"", Violation.BAD_TERMINATOR, 14),
    ReplyCase("refusal-one-line-end", b"GETFILE ERROR\r\nX", None, b"", Violation.BAD_TERMINATOR, 16),
]
