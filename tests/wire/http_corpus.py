"""The corpus of HTTP requests: what a client sends on one connection, and what must come of it.

The refused ones are the classic malformed or ambiguous requests: each has been read in two ways by two servers in a
row somewhere. `refused` is the status that ends the connection; what is listed in `requests` came through before.
"""

from dataclasses import dataclass

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"


@dataclass(frozen=True)
class HttpCase:
    name: str
    data: bytes
    requests: tuple[tuple[bytes, bytes, bytes], ...] = ()
    """Method, target and body of each."""
    refused: int | None = None
    unfinished: bool = False


def _get(*lines: bytes, line: bytes = b"GET /a HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *lines, b"", b""])


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return _get(b"Host: h", *lines, line=b"POST /a HTTP/1.1") + body


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


_A = (b"GET", b"/a", b"")
_B = (b"GET", b"/b", b"")
_SMUGGLED = (b"GET", b"/smuggled", b"")
_GET_B = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"

READ = [
    HttpCase("nothing", b""),
    HttpCase("plain", _get(b"Host: h"), (_A,)),
    HttpCase("pipelined", _get(b"Host: h") + _GET_B, (_A, _B)),
    HttpCase("line-ends-between-requests", b"\r\n" + _get(b"Host: h") + b"\r\n\r\n" + _GET_B + b"\r\n", (_A, _B)),
    HttpCase("1.0-without-host", _get(line=b"GET /a HTTP/1.0"), (_A,)),
    HttpCase("1.0-with-host", _get(b"Host: h", line=b"GET /a HTTP/1.0"), (_A,)),
    HttpCase(
        "absolute-form",
        _get(b"Host: other", line=b"GET http://h:81/a?b HTTP/1.1"),
        ((b"GET", b"http://h:81/a?b", b""),),
    ),
    HttpCase(
        "absolute-form-without-a-path",
        _get(b"Host: h", line=b"GET HTTPS://[::1] HTTP/1.1"),
        ((b"GET", b"HTTPS://[::1]", b""),),
    ),
    HttpCase("two-slashes-are-a-path", _get(b"Host: h", line=b"GET //evil/a HTTP/1.1"), ((b"GET", b"//evil/a", b""),)),
    HttpCase("asterisk-form", _get(b"Host: h", line=b"OPTIONS * HTTP/1.1"), ((b"OPTIONS", b"*", b""),)),
    HttpCase("connect", _get(b"Host: h:443", line=b"CONNECT h:443 HTTP/1.1"), ((b"CONNECT", b"h:443", b""),)),
    HttpCase("unknown-method", _get(b"Host: h", line=b"X-FROB /a HTTP/1.1"), ((b"X-FROB", b"/a", b""),)),
    HttpCase(
        "bytes-beyond-ascii-in-the-target",
        _get(b"Host: h", line=b"GET /\xc3\xbc HTTP/1.1"),
        ((b"GET", b"/\xc3\xbc", b""),),
    ),
    HttpCase("bytes-beyond-ascii-in-a-value", _get(b"Host: h", b"X: \xff"), (_A,)),
    HttpCase("no-blank-behind-the-colon", _get(b"Host:h", b"X:"), (_A,)),
    HttpCase("blanks-around-a-value", _get(b"Host: \th \t"), (_A,)),
    HttpCase("length", _post(b"Content-Length: 5", body=b"hello") + _GET_B, ((b"POST", b"/a", b"hello"), _B)),
    HttpCase("length-zero", _post(b"Content-Length: 0") + _GET_B, ((b"POST", b"/a", b""), _B)),
    HttpCase("length-with-zeros-before", _post(b"Content-Length: 005", body=b"hello"), ((b"POST", b"/a", b"hello"),)),
    HttpCase(
        "a-body-that-looks-like-a-request",
        _post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED) + _GET_B,
        ((b"POST", b"/a", SMUGGLED), _B),
    ),
    HttpCase(
        "get-with-a-body",
        _get(b"Host: h", b"Content-Length: 3") + b"abc" + _GET_B,
        ((b"GET", b"/a", b"abc"), _B),
    ),
    HttpCase("no-length-no-body", _post() + SMUGGLED, ((b"POST", b"/a", b""), _SMUGGLED)),
    HttpCase(
        "chunked",
        _chunked(b"5\r\nhello\r\nA\r\n, world!!\n\r\n0\r\n\r\n") + _GET_B,
        ((b"POST", b"/a", b"hello, world!!\n"), _B),
    ),
    HttpCase(
        "chunked-spelled-with-capitals",
        _post(b"transfer-ENCODING: Chunked", body=b"0\r\n\r\n") + _GET_B,
        ((b"POST", b"/a", b""), _B),
    ),
    HttpCase(
        "chunk-extensions",
        _chunked(b'5;a;b=c;d="e \\"f\\""\r\nhello\r\n00;z\r\n\r\n') + _GET_B,
        ((b"POST", b"/a", b"hello"), _B),
    ),
    HttpCase("trailers", _chunked(b"1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n") + _GET_B, ((b"POST", b"/a", b"x"), _B)),
    HttpCase(
        "trailers-mean-nothing-for-the-framing",
        _chunked(b"1\r\nx\r\n0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)) + SMUGGLED,
        ((b"POST", b"/a", b"x"), _SMUGGLED),
    ),
    HttpCase(
        "upgrade-is-a-request-like-any-other",
        _get(b"Host: h", b"Connection: upgrade", b"Upgrade: h2c") + _GET_B,
        (_A, _B),
    ),
    HttpCase("half-a-head", _get(b"Host: h") + b"GET /b HTTP/1.1\r\nHost", (_A,), unfinished=True),
    HttpCase("half-a-line-end", b"\r", unfinished=True),
    HttpCase("half-a-body", _post(b"Content-Length: 5", body=b"hell"), unfinished=True),
    HttpCase("half-a-chunk-size", _chunked(b"5"), unfinished=True),
    HttpCase("half-a-chunk", _chunked(b"5\r\nhello\r"), unfinished=True),
    HttpCase("half-the-end-of-chunks", _chunked(b"0\r\n\r"), unfinished=True),
    HttpCase("largest-length", _post(b"Content-Length: %d" % (2**63 - 1)), unfinished=True),
    HttpCase("largest-chunk", _chunked(b"7fffffffffffffff\r\n"), unfinished=True),
]

REFUSED = [
    # The host (RFC 9112 section 3.2)
    HttpCase("no-host", _get(), refused=400),
    HttpCase("two-hosts", _get(b"Host: h", b"Host: evil"), refused=400),
    HttpCase("two-equal-hosts", _get(b"Host: h", b"host: h"), refused=400),
    HttpCase("two-hosts-on-1.0", _get(b"Host: h", b"Host: h", line=b"GET /a HTTP/1.0"), refused=400),
    HttpCase("empty-host", _get(b"Host:"), refused=400),
    HttpCase("host-with-a-user", _get(b"Host: h@evil"), refused=400),
    HttpCase("host-with-a-path", _get(b"Host: h/evil"), refused=400),
    HttpCase("host-with-a-blank", _get(b"Host: h evil"), refused=400),
    HttpCase("host-with-a-list", _get(b"Host: h, evil"), refused=400),
    HttpCase("host-with-letters-as-port", _get(b"Host: h:8x"), refused=400),
    HttpCase("absolute-form-without-host", _get(line=b"GET http://h/a HTTP/1.1"), refused=400),
    # The length of the body (section 6)
    HttpCase(
        "length-and-chunked",
        _post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        refused=400,
    ),
    HttpCase(
        "chunked-and-length",
        _post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        refused=400,
    ),
    HttpCase(
        "chunked-on-1.0",
        _get(b"Host: h", b"Transfer-Encoding: chunked", line=b"POST /a HTTP/1.0") + b"0\r\n\r\n" + SMUGGLED,
        refused=400,
    ),
    HttpCase("two-lengths", _post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"), refused=400),
    HttpCase("two-equal-lengths", _post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), refused=400),
    HttpCase("list-of-lengths", _post(b"Content-Length: 5, 5", body=b"hello"), refused=400),
    HttpCase("length-with-plus", _post(b"Content-Length: +5", body=b"hello"), refused=400),
    HttpCase("length-with-minus", _post(b"Content-Length: -5", body=b"hello"), refused=400),
    HttpCase("length-hexadecimal", _post(b"Content-Length: 0x5", body=b"hello"), refused=400),
    HttpCase("length-with-underscore", _post(b"Content-Length: 1_0", body=b"helloworld"), refused=400),
    HttpCase("length-in-other-digits", _post(b"Content-Length: \xd9\xa5", body=b"hello"), refused=400),
    HttpCase("length-with-a-blank-inside", _post(b"Content-Length: 5 5", body=b"hello"), refused=400),
    HttpCase("length-empty", _post(b"Content-Length:"), refused=400),
    HttpCase("length-2-to-the-63", _post(b"Content-Length: %d" % 2**63), refused=400),
    HttpCase("length-2-to-the-64-and-5", _post(b"Content-Length: %d" % (2**64 + 5), body=b"hello"), refused=400),
    HttpCase(
        "transfer-coding-with-a-letter-before", _post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), refused=400
    ),
    HttpCase("transfer-coding-quoted", _post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), refused=400),
    HttpCase("transfer-coding-identity", _post(b"Transfer-Encoding: identity"), refused=400),
    HttpCase("transfer-coding-empty", _post(b"Transfer-Encoding:"), refused=400),
    HttpCase(
        "transfer-coding-chunked-not-last", _post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), refused=400
    ),
    HttpCase(
        "transfer-coding-chunked-twice", _post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), refused=400
    ),
    HttpCase(
        "transfer-coding-chunked-on-two-lines",
        _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        refused=400,
    ),
    HttpCase(
        "transfer-coding-identity-on-a-second-line",
        _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
        refused=400,
    ),
    HttpCase(
        "transfer-coding-with-tabulator-before",
        _post(b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"),
        refused=400,
    ),
    HttpCase(
        "transfer-coding-with-tabulator-behind",
        _post(b"Transfer-Encoding: chunked\t", body=b"0\r\n\r\n"),
        refused=400,
    ),
    HttpCase("length-with-tabulator-behind", _post(b"Content-Length: 5\t", body=b"hello"), refused=400),
    HttpCase(
        "transfer-coding-with-vertical-tab", _post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), refused=400
    ),
    HttpCase(
        "transfer-coding-with-parameter", _post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n"), refused=400
    ),
    HttpCase("transfer-coding-gzip", _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), refused=501),
    # Field lines (section 5)
    HttpCase("blank-before-the-colon", _post(b"Content-Length : 5", body=b"hello"), refused=400),
    HttpCase("tabulator-before-the-colon", _post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"), refused=400),
    HttpCase("folded-line", _get(b"Host: h", b"X: a", b" b"), refused=400),
    HttpCase("folded-transfer-coding", _post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"), refused=400),
    HttpCase("first-field-begins-with-a-blank", _get(b" Host: h", b"Host: h"), refused=400),
    HttpCase("line-without-a-colon", _get(b"Host: h", b"X"), refused=400),
    HttpCase("empty-name", _get(b"Host: h", b": x"), refused=400),
    HttpCase("name-with-a-bracket", _get(b"Host: h", b"X[]: x"), refused=400),
    HttpCase("name-beyond-ascii", _get(b"Host: h", b"X\xff: x"), refused=400),
    HttpCase("nul-in-a-value", _get(b"Host: h", b"X: a\0b"), refused=400),
    HttpCase("nul-in-a-name", _get(b"Host: h", b"X\0: b"), refused=400),
    HttpCase("cr-in-a-value", _get(b"Host: h", b"X: a\rY: b"), refused=400),
    HttpCase("cr-twice-at-a-line-end", _get(b"Host: h\r", b"X: a"), refused=400),
    HttpCase("lf-ends-a-field-line", _get(b"Host: h\nContent-Length: 5") + b"hello", refused=400),
    HttpCase("lf-ends-the-head", b"GET /a HTTP/1.1\r\nHost: h\r\n\n" + SMUGGLED, refused=400),
    HttpCase("lf-ends-all-lines", b"GET /a HTTP/1.1\nHost: h\n\n", refused=400),
    HttpCase("del-in-a-value", _get(b"Host: h", b"X: a\x7fb"), refused=400),
    # The request line (section 3)
    HttpCase("leading-blank", b" " + _get(b"Host: h"), refused=400),
    HttpCase("leading-cr", b"\r" + _get(b"Host: h"), refused=400),
    HttpCase("leading-lf", b"\n" + _get(b"Host: h"), refused=400),
    HttpCase("two-blanks-before-the-target", _get(b"Host: h", line=b"GET  /a HTTP/1.1"), refused=400),
    HttpCase("two-blanks-before-the-version", _get(b"Host: h", line=b"GET /a  HTTP/1.1"), refused=400),
    HttpCase("blank-behind-the-version", _get(b"Host: h", line=b"GET /a HTTP/1.1 "), refused=400),
    HttpCase("tabulator-for-a-blank", _get(b"Host: h", line=b"GET\t/a\tHTTP/1.1"), refused=400),
    HttpCase("blank-in-the-target", _get(b"Host: h", line=b"GET /a b HTTP/1.1"), refused=400),
    HttpCase("nul-in-the-target", _get(b"Host: h", line=b"GET /a\0b HTTP/1.1"), refused=400),
    HttpCase("cr-in-the-target", _get(b"Host: h", line=b"GET /a\rb HTTP/1.1"), refused=400),
    HttpCase("lf-ends-the-request-line", b"GET /a HTTP/1.1\nHost: h\r\n\r\n", refused=400),
    HttpCase("no-version", b"GET /a\r\nHost: h\r\n\r\n", refused=400),
    HttpCase("no-target", _get(b"Host: h", line=b"GET HTTP/1.1"), refused=400),
    HttpCase("version-in-lower-case", _get(b"Host: h", line=b"GET /a http/1.1"), refused=400),
    HttpCase("version-with-letters", _get(b"Host: h", line=b"GET /a HTTP/1.x"), refused=400),
    HttpCase("version-with-three-digits", _get(b"Host: h", line=b"GET /a HTTP/1.10"), refused=400),
    HttpCase("version-2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused=505),
    HttpCase("version-0.9", _get(b"Host: h", line=b"GET /a HTTP/0.9"), refused=505),
    HttpCase("version-1.2", _get(b"Host: h", line=b"GET /a HTTP/1.2"), refused=505),
    HttpCase("method-with-a-colon", _get(b"Host: h", line=b"GE:T /a HTTP/1.1"), refused=400),
    HttpCase("method-of-33-bytes", _get(b"Host: h", line=b"M" * 33 + b" /a HTTP/1.1"), refused=400),
    HttpCase("target-without-a-slash", _get(b"Host: h", line=b"GET a HTTP/1.1"), refused=400),
    HttpCase("target-of-another-scheme", _get(b"Host: h", line=b"GET file:///etc/passwd HTTP/1.1"), refused=400),
    HttpCase("target-with-a-user", _get(b"Host: h", line=b"GET http://u@h/a HTTP/1.1"), refused=400),
    HttpCase("target-without-a-host", _get(b"Host: h", line=b"GET http:///a HTTP/1.1"), refused=400),
    HttpCase("target-with-a-fragment-for-a-path", _get(b"Host: h", line=b"GET http://h#.b:81/ HTTP/1.1"), refused=400),
    HttpCase("asterisk-with-get", _get(b"Host: h", line=b"GET * HTTP/1.1"), refused=400),
    HttpCase("authority-with-get", _get(b"Host: h", line=b"GET h:443 HTTP/1.1"), refused=400),
    HttpCase("connect-with-a-path", _get(b"Host: h", line=b"CONNECT /a HTTP/1.1"), refused=400),
    HttpCase("connect-without-a-port", _get(b"Host: h", line=b"CONNECT h HTTP/1.1"), refused=400),
    HttpCase("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", refused=400),
    # Expectations (RFC 9110 section 10.1.1)
    HttpCase("unknown-expectation", _post(b"Content-Length: 1", b"Expect: 200-ok", body=b"x"), refused=417),
    # Chunks (RFC 9112 section 7.1)
    HttpCase("chunk-size-empty", _chunked(b"\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-plus", _chunked(b"+5\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-minus", _chunked(b"-5\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-underscore", _chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-a-blank-before", _chunked(b" 5\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-with-a-blank-behind", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-2-to-the-63", _chunked(b"8000000000000000\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-2-to-the-64-and-5", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-ended-by-lf", _chunked(b"5\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-size-ended-by-cr", _chunked(b"5\rhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-extension-with-lf", _chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-extension-with-cr", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-extension-without-a-name", _chunked(b"5;\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-extension-too-long", _chunked(b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-longer-than-its-size", _chunked(b"5\r\nhelloX\r\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-ended-by-lf", _chunked(b"5\r\nhello\n0\r\n\r\n"), refused=400),
    HttpCase("chunk-without-its-line-end", _chunked(b"5\r\nhello0\r\n\r\n"), refused=400),
    HttpCase("trailer-with-lf", _chunked(b"0\r\nA: b\n\r\n"), refused=400),
    HttpCase("trailer-folded", _chunked(b"0\r\nA: b\r\n c\r\n\r\n"), refused=400),
    HttpCase("end-of-chunks-by-lf", _chunked(b"0\r\n\n"), refused=400),
    # Requests before a bad one count
    HttpCase("good-then-bad", _get(b"Host: h") + b"GET /b HTTP/1.1\r\n\r\n", (_A,), refused=400),
    HttpCase(
        "body-longer-than-its-length",
        _post(b"Content-Length: 5", body=b"hello?!\r\n\r\n"),
        ((b"POST", b"/a", b"hello"),),
        refused=400,
    ),
]

LARGE = [
    HttpCase("request-line-endless", b"GET /" + b"a" * 9000, refused=414),
    HttpCase("request-line-of-8193-bytes", b"GET /" + b"a" * 8179 + b" HTTP/1.1\r\nHost: h\r\n\r\n", refused=414),
    HttpCase("head-endless", b"GET /a HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 9000, refused=431),
    HttpCase("head-too-long", _get(b"Host: h", b"X: " + b"a" * 9000), refused=431),
    HttpCase("too-many-fields", _get(b"Host: h", *[b"X: y"] * 100), refused=431),
    HttpCase("most-fields", _get(b"Host: h", *[b"X: y"] * 99), (_A,)),
    HttpCase("longest-head", _get(b"Host: h", b"X: " + b"a" * (8192 - 33)), (_A,)),
    HttpCase("head-one-byte-too-long", _get(b"Host: h", b"X: " + b"a" * (8192 - 32)), refused=431),
    HttpCase("bad-line-before-the-limit", _get(b"Host: h", b"X y", b"X: " + b"a" * 9000), refused=400),
    HttpCase("bad-line-behind-the-limit", _get(b"Host: h", b"X: " + b"a" * 9000, b"X y"), refused=431),
    HttpCase("trailers-too-long", _chunked(b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n"), refused=431),
    HttpCase("too-many-trailers", _chunked(b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n"), refused=431),
    HttpCase("extensions-without-end", _chunked((b"1;" + b"a" * 240 + b"\r\nx\r\n") * 40 + b"0\r\n\r\n"), refused=400),
]
