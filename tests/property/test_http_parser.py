"""HTTP requests cut anywhere give the same; any bytes parse or are refused; what is accepted, httptools reads alike."""

from __future__ import annotations

import httptools
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from tests.support.feeding import pieces
from tests.support.http_feeding import read_connection
from webproxy.http.messages import RequestHead

_TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcXYZ"
_VALUE_BYTES = bytes(range(0x21, 0x7F)) + b"\x80\xff"
_FRAMING = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}


def _words(alphabet: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(list(alphabet)), min_size=least, max_size=most).map(bytes)


tokens = _words(_TOKEN_BYTES, 1, 12)
values = st.lists(_words(_VALUE_BYTES, 1, 10), max_size=3).map(b" ".join)
blanks = st.sampled_from([b"", b" ", b"\t", b"  \t"])
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PURGE", b"X-OWN", b"m" * 32])
paths = _words(_VALUE_BYTES, 0, 20).map(b"/".__add__)
targets = paths | paths.map(lambda path: b"http://h.example:8080" + path.replace(b"#", b"%23"))
other_fields = st.tuples(tokens.filter(lambda name: name.lower() not in _FRAMING), values)
bodies = st.binary(max_size=40)
chunkings = st.lists(
    st.tuples(st.binary(min_size=1, max_size=20), st.sampled_from([b"", b";a", b';a="b;c"'])), max_size=4
)


def _line(name: bytes, value: bytes, before: bytes, behind: bytes) -> bytes:
    if name.lower() in _FRAMING:  # no tabulator there
        before, behind = before.strip(b"\t"), behind.strip(b"\t")
    return b"%s:%s%s%s\r\n" % (name, before, value, behind)


@st.composite
def valid_requests(draw: st.DrawFn) -> tuple[bytes, tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]]:
    """The bytes of a request, and its method, target, fields and body."""
    fields = draw(st.lists(other_fields, max_size=4))
    fields.insert(draw(st.integers(0, len(fields))), (b"Host", b"h"))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    sent = body = b""
    if framing == "length":
        sent = body = draw(bodies)
        fields.append((b"content-length", b"%d" % len(body)))
    elif framing == "chunked":
        chunks = draw(chunkings)
        body = b"".join(data for data, _ in chunks)
        fields.append((b"TRANSFER-encoding", b"chunked"))
        sent = b"".join(b"%x%s\r\n%s\r\n" % (len(data), extension, data) for data, extension in chunks)
        sent += b"0\r\n" + draw(st.sampled_from([b"", b"A: b\r\n"])) + b"\r\n"
    method, target = draw(methods), draw(targets)
    lines = [_line(name, value, draw(blanks), draw(blanks)) for name, value in fields]
    head = b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, b"".join(lines))
    return head + sent, (method, target, tuple(fields), body)


connections = st.lists(valid_requests(), min_size=1, max_size=3)
cuts = st.lists(st.integers(0, 600), max_size=8)

_PARTS = [
    b"GET",
    b"POST",
    b" ",
    b"/",
    b"/a",
    b"*",
    b"http://h",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
]
_PARTS += [
    b"GET / HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\n",
    b"Host: h\r\n",
    b"Host:",
    b":",
    b"Content-Length: ",
]
_PARTS += [
    b"Transfer-Encoding: chunked\r\n",
    b"5",
    b"0",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"hello",
    b";a",
    b"\0",
    b"\xff",
]
_PARTS += [b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Content-Length: 5\r\n", b"\t"]
nearly_requests = st.lists(st.sampled_from(_PARTS), max_size=12).map(b"".join)


@st.composite
def changed_requests(draw: st.DrawFn) -> bytes:
    """A valid request with a few bytes put in the place of others."""
    data = draw(valid_requests())[0]
    for _ in range(draw(st.integers(1, 3))):
        place, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 2))
        new = draw(st.sampled_from([*_PARTS, b""]) | st.binary(max_size=2))
        data = data[:place] + new + data[place + gone :]
    return data


any_bytes = st.binary(max_size=60) | nearly_requests | changed_requests()


@given(connections, cuts)
def test_valid_requests_are_read_as_they_were_meant_however_they_are_cut(
    sent: list[tuple[bytes, tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]]], where: list[int]
) -> None:
    data = b"".join(request for request, _ in sent)
    reading = read_connection(pieces(data, where))
    read = [(head.method, head.target, head.fields.lines, body) for head, body in reading.requests]
    assert read == [meaning for _, meaning in sent]
    assert (reading.refused, reading.unfinished) == (None, False)


@given(any_bytes, cuts)
@example(b"\r\n\rGET", [3])
def test_cutting_anything_anywhere_changes_nothing(data: bytes, where: list[int]) -> None:
    assert read_connection(pieces(data, where)) == read_connection([data])


@given(any_bytes, cuts, st.integers(24, 120), st.integers(1, 4))
def test_nor_does_it_when_the_limits_are_low(data: bytes, where: list[int], bytes_max: int, fields_max: int) -> None:
    whole = read_connection([data], head_bytes_max=bytes_max, fields_max=fields_max)
    assert read_connection(pieces(data, where), head_bytes_max=bytes_max, fields_max=fields_max) == whole


class Witness:
    """The first request that httptools reads on a connection."""

    def __init__(self) -> None:
        self.method = self.target = self.body = b""
        self.version = ""
        self.lines: list[tuple[bytes, bytes]] = []
        self.in_head = True
        self.complete = False
        self._parser = httptools.HttpRequestParser(self)

    def read(self, data: bytes) -> None:
        """Feed all; what comes behind the first request may be refused."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            assert self.complete

    def on_url(self, target: bytes) -> None:
        if not self.complete:
            self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.lines.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.in_head = False
            self.method, self.version = self._parser.get_method(), self._parser.get_http_version()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def may_differ(head: RequestHead) -> bool:
    """httptools knows certain methods only, and wants targets of ASCII: those come through here on purpose."""
    known = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PURGE"}
    return head.method not in known or not head.target.isascii()


@given(changed_requests() | nearly_requests | valid_requests().map(lambda request: request[0]))
def test_what_is_accepted_httptools_reads_alike(data: bytes) -> None:
    accepted = read_connection([data]).requests
    assume(accepted)
    head, body = accepted[0]
    assume(not may_differ(head))
    event(f"{head.framing.value}, {len(body)} bytes" if body else head.framing.value)
    witness = Witness()
    witness.read(data)
    assert (witness.method, witness.target, tuple(witness.lines), witness.body) == (
        head.method,
        head.target,
        head.fields.lines,
        body,
    )
    assert witness.version == "{}.{}".format(*head.version)
