"""RequestParser as a connection uses it: where it stops, what it keeps; what it accepts is in the wire corpus."""

import pytest

from webproxy.http.fields import Fields
from webproxy.http.messages import Framing, HttpError, RequestHead
from webproxy.http.parser import RequestParser

GET = b"GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def is_buffered(parser: RequestParser) -> bool:
    return parser.buffered


def is_complete(parser: RequestParser) -> bool:
    return parser.body_complete


def test_a_head_comes_as_soon_as_it_is_whole() -> None:
    parser = RequestParser()
    assert parser.feed(GET[:-1]) is None
    assert is_buffered(parser)
    assert parser.feed(GET[-1:]) == RequestHead(b"GET", b"/a", (1, 1), Fields([(b"Host", b"h"), (b"X", b"y")]))
    assert is_complete(parser)
    assert not is_buffered(parser)
    assert parser.body() == b""
    assert parser.next_head() is None


def test_what_a_head_tells() -> None:
    assert RequestParser().feed(POST) == RequestHead(
        b"POST",
        b"/p",
        (1, 1),
        Fields([(b"Host", b"h"), (b"Content-Length", b"5"), (b"Expect", b"100-continue")]),
        Framing.LENGTH,
        content_length=5,
        keep_alive=True,
        expects_continue=True,
    )
    assert RequestParser().feed(b"GET / HTTP/1.0\r\n\r\n") == RequestHead(
        b"GET", b"/", (1, 0), Fields(), keep_alive=False
    )


def test_it_stops_behind_a_head_and_keeps_the_next() -> None:
    parser = RequestParser()
    assert parser.feed(GET + GET.replace(b"/a", b"/b") + b"GET") is not None
    assert is_buffered(parser)
    second = parser.next_head()
    assert second is not None
    assert second.target == b"/b"
    assert is_buffered(parser)
    assert parser.next_head() is None
    assert is_buffered(parser)
    third = parser.feed(GET[3:])
    assert third is not None
    assert third.target == b"/a"


def test_a_body_of_a_length_ends_there() -> None:
    parser = RequestParser()
    parser.feed(POST + b"he")
    assert not is_complete(parser)
    assert not is_buffered(parser)
    assert parser.body() == b"he"
    assert parser.body() == b""
    assert parser.body(b"l") == b"l"
    assert not is_complete(parser)
    assert parser.body(b"lo" + GET) == b"lo"
    assert is_complete(parser)
    assert is_buffered(parser)
    head = parser.next_head()
    assert head is not None
    assert head.target == b"/a"


def test_a_chunked_body_ends_behind_its_trailers() -> None:
    parser = RequestParser()
    head = parser.feed(CHUNKED + b"3\r\nab")
    assert head is not None
    assert (head.framing, head.keep_alive) == (Framing.CHUNKED, False)
    assert parser.body() == b"ab"
    assert parser.body(b"c\r\n0\r\nA: b\r\n") == b"c"
    assert not is_complete(parser)
    assert parser.body(b"\r\n" + GET) == b""
    assert is_complete(parser)
    assert parser.next_head() is not None


def test_the_next_request_waits_for_the_end_of_the_body() -> None:
    parser = RequestParser()
    parser.feed(POST)
    with pytest.raises(AssertionError):
        parser.next_head()
    parser = RequestParser()
    parser.feed(CHUNKED)
    with pytest.raises(AssertionError):
        parser.next_head()


def test_line_ends_between_requests_are_no_beginning() -> None:
    parser = RequestParser()
    assert parser.feed(b"\r\n\r\n") is None
    assert not is_buffered(parser)
    assert parser.feed(b"\r") is None
    assert is_buffered(parser)
    assert parser.feed(b"\n" + GET) is not None


def test_the_same_header_section_is_read_once() -> None:
    parser = RequestParser()
    first, second = parser.feed(GET), parser.feed(GET.replace(b"/a", b"/b"))
    assert first is not None
    assert second is not None
    assert (first.target, second.target) == (b"/a", b"/b")
    assert first.fields is second.fields


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", id="keep-alive"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", id="close"),
    ],
)
def test_the_same_header_section_means_something_else_in_another_version(first: bytes, second: bytes) -> None:
    parser = RequestParser()
    heads = parser.feed(first), parser.feed(second)
    assert [(head.version, head.keep_alive) for head in heads if head] == [
        ((1, int(line[13:14])), line[13:14] == b"1") for line in (first, second)
    ]


def test_a_section_good_for_1_0_is_not_good_for_1_1() -> None:
    parser = RequestParser()
    assert parser.feed(b"GET / HTTP/1.0\r\n\r\n") is not None
    with pytest.raises(HttpError) as refused:
        parser.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert refused.value.status == 400


def test_a_section_seen_before_still_has_its_body() -> None:
    parser = RequestParser()
    for _ in range(2):
        assert parser.feed(POST + b"hello") is not None
        assert not is_complete(parser)
        assert parser.body() == b"hello"
        assert is_complete(parser)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n", 431, id="three-fields"),
        pytest.param(b"GET /" + b"a" * 40, 414, id="request-line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 20, 431, id="head"),
    ],
)
def test_limits_can_be_set(data: bytes, status: int) -> None:
    parser = RequestParser(head_bytes_max=44, fields_max=2)
    with pytest.raises(HttpError) as refused:
        parser.feed(data)
    assert refused.value.status == status


def test_a_head_is_refused_at_the_byte_at_which_it_can_no_longer_end_in_time() -> None:
    parser = RequestParser(head_bytes_max=44)
    assert parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 15) is None
    with pytest.raises(HttpError) as refused:
        parser.feed(b"b")
    assert refused.value.status == 431


def test_a_request_line_has_its_own_limit_where_heads_may_be_longer() -> None:
    longest = b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1"
    assert len(longest) == 8192
    assert RequestParser(head_bytes_max=20_000).feed(longest + b"\r\nHost: h\r\n\r\n") is not None
    for data in (longest[:-9] + b"a HTTP/1.1\r\nHost: h\r\n\r\n", longest[:-9] + b"a" * 100):
        with pytest.raises(HttpError) as refused:
            RequestParser(head_bytes_max=20_000).feed(data)
        assert refused.value.status == 414


def whole(data: bytes, *more: bytes) -> bytes:
    """The parser's result after these pieces, the last of which ends a head."""
    parser = RequestParser()
    for piece in (data, *more):
        head = parser.feed(piece)
    assert head is not None
    return parser.whole_request


def test_a_request_that_came_alone_is_whole() -> None:
    assert whole(GET) == GET
    assert whole(GET[:7], GET[7:]) == GET
    assert whole(GET, GET) == GET


def test_what_came_with_others_is_not() -> None:
    parser = RequestParser()
    parser.feed(GET + GET)
    assert parser.whole_request == b""
    assert parser.next_head() is not None
    assert parser.whole_request == b""
    parser = RequestParser()
    parser.feed(GET)
    assert parser.feed(GET[:9]) is None
    assert parser.whole_request == b"", "these are the bytes of no request"
    assert whole(b"\r\n" + GET) == b""
    assert whole(GET, b"\r\n" + GET) == b""


@pytest.mark.parametrize("line", [b"Cookie: a=b", b"authorization: Basic x", b"Proxy-Authorization: x"])
def test_what_tells_of_a_person_is_not_kept(line: bytes) -> None:
    assert whole(GET[:-2] + line + b"\r\n\r\n") == b""


def test_what_is_long_is_not_kept() -> None:
    assert whole(GET[:-2] + b"X: " + b"x" * 1100 + b"\r\n\r\n") == b""
    assert whole(GET.replace(b"/a", b"/" + b"a" * 2048)) == b""
