"""What is asked of an origin: which fields go out, in libcurl's notation, and which never do."""

from __future__ import annotations

import pytest

from webproxy.errors import OriginRefused
from webproxy.http.fields import Field, Fields
from webproxy.origin.request import OriginRequest, fields_for, getfile_request, header_lines

URL = "http://a.example/x"


class Body:
    def __init__(self, length: int | None) -> None:
        self.length = length

    def read(self, size: int) -> bytes:
        return b""


def sent(
    *lines: Field,
    added: tuple[Field, ...] = (),
    elsewhere: bool = False,
    method: bytes = b"GET",
    body: Body | None = None,
) -> tuple[Field, ...]:
    request = OriginRequest(url=URL, method=method, fields=Fields(lines), body=body)
    return fields_for(request, added, elsewhere=elsewhere).lines


def test_fields_go_out_as_they_are_and_in_their_order() -> None:
    lines = ((b"X-B", b"1"), (b"accept", b"text/html"), (b"X-B", b"2"), (b"Host", b"h"), (b"Cookie", b"k=v"))
    assert sent(*lines) == lines


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"Expect"])
def test_framing_is_not_taken_from_fields(name: bytes) -> None:
    assert sent((name, b"5"), (b"X", b"y")) == ((b"X", b"y"),)


def test_expect_goes_out_with_a_body() -> None:
    assert sent((b"Expect", b"100-continue"), (b"Content-Length", b"3"), method=b"PUT", body=Body(3)) == (
        (b"Expect", b"100-continue"),
    )


def test_the_operators_fields_take_the_place_of_the_clients() -> None:
    added = ((b"Authorization", b"Bearer ours"), (b"X-Key", b"k"))
    lines = ((b"authorization", b"Basic theirs"), (b"X-A", b"1"), (b"x-key", b"forged"))
    assert sent(*lines, added=added) == ((b"X-A", b"1"), *added)


def test_another_host_gets_nothing_that_was_for_the_first() -> None:
    lines = (
        (b"Host", b"h"),
        (b"Authorization", b"a"),
        (b"Cookie", b"c"),
        (b"Proxy-Authorization", b"p"),
        (b"Accept", b"*/*"),
    )
    assert sent(*lines, added=((b"X-Key", b"k"),), elsewhere=True) == ((b"Accept", b"*/*"),)


@pytest.mark.parametrize(
    "field",
    [
        (b"X", b"a\r\nY: b"),
        (b"X", b"a\nb"),
        (b"X", b"a\rb"),
        (b"X", b"a\0b"),
        (b"X\r\nY", b"a"),
        (b"X Y", b"a"),
        (b"X:", b"a"),
        (b"X;", b""),
        (b"", b"a"),
        (b"\xe9", b"a"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("own", [True, False], ids=["the operator's", "the client's"])
def test_a_field_that_would_be_two_lines_or_none_is_refused(field: Field, own: bool) -> None:
    with pytest.raises(OriginRefused, match="cannot be sent"):
        sent(*([] if own else [field]), added=(field,) if own else ())


@pytest.mark.parametrize("value", [b"a\tb", b"\xe9\xff", b"a\x01b", b'"; x'])
def test_a_value_that_stays_in_its_line_may_be_sent(value: bytes) -> None:
    assert sent((b"X", value)) == ((b"X", value),)


@pytest.mark.parametrize("method", [b"", b"GE T", b"GET\r\n", b"G\0", b"CONNECT", b"\xe9"])
def test_a_method_that_cannot_be_sent(method: bytes) -> None:
    with pytest.raises(OriginRefused, match="method"):
        sent(method=method)


def test_lines_in_libcurls_notation() -> None:
    fields = Fields(((b"X", b"a"), (b"Y", b""), (b"user-agent", b"me")))
    assert header_lines(fields) == [b"X: a", b"Y;", b"user-agent: me", b"Accept:", b"Expect:"]


@pytest.mark.parametrize(
    ("method", "body", "repeatable", "sends_body"),
    [
        (b"GET", None, True, False),
        (b"HEAD", None, True, False),
        (b"DELETE", None, True, False),
        (b"OPTIONS", None, True, False),
        (b"PUT", None, True, True),
        (b"POST", None, False, True),
        (b"PATCH", None, False, True),
        (b"PURGE", None, False, False),
        (b"get", None, False, False),
        (b"GET", Body(0), False, True),
        (b"PUT", Body(None), False, True),
        (b"HEAD", Body(3), False, False),
    ],
)
def test_what_may_be_sent_twice_and_what_has_content(
    method: bytes, body: Body | None, repeatable: bool, sends_body: bool
) -> None:
    request = OriginRequest(url=URL, method=method, body=body)
    assert (request.repeatable, request.sends_body) == (repeatable, sends_body)


def test_what_a_getfile_client_asks() -> None:
    request = getfile_request(URL)
    assert (request.method, request.url, request.body, request.follow_redirects) == (b"GET", URL, None, True)
    assert request.fields.get(b"accept-encoding") == b"identity"
