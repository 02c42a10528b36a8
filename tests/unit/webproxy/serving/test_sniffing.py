"""Protocols: the first bytes decide, at every cut alike; what a getfile proxy refused, it still refuses as getfile."""

from __future__ import annotations

import pytest

from tests.wire.corpus import INCOMPLETE_REQUESTS, INVALID_REQUESTS, VALID_REQUESTS, RequestCase
from tests.wire.http_corpus import READ, HttpCase
from webproxy.serving.new_connection import UNDECIDED_BYTES_MAX, Spoken, leans_to_http, spoken_by

HTTP_LINES = [
    b"GET / HTTP/1.1\r\n",
    b"GET /a?b HTTP/1.0\r\n",
    b"GET http://h/ HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"X-FROB /a HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"GET / HTTP/1.1\n",
    b"GET  / HTTP/1.1\r\n",
    b"GETFILES /a HTTP/1.1\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
]
OTHER_LINES = [
    b"GET /\r\n",
    b"GET / http/1.1\r\n",
    b"GET / HTTP/1\r\n",
    b"GET / HTTP/1.1 \r\n",
    b" GET / HTTP/1.1\r\n",
    b"\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"\nGET / HTTP/1.1\r\n",
    b"GETFILS GET /a\r\n",
    b"\0\n",
]


def decided(data: bytes) -> tuple[Spoken, int]:
    """The protocol of bytes that come one by one, and how many it took to tell."""
    for size in range(len(data) + 1):
        spoken = spoken_by(data[:size])
        if spoken is not Spoken.UNDECIDED:
            return spoken, size
    return Spoken.UNDECIDED, len(data)


@pytest.mark.parametrize("line", HTTP_LINES)
def test_a_line_that_ends_in_a_version_is_http_when_it_is_whole_and_not_before(line: bytes) -> None:
    assert decided(line) == (Spoken.HTTP, len(line))
    assert spoken_by(line + b"more\r\nGETFILE GET /a\r\n\r\n") is Spoken.HTTP


@pytest.mark.parametrize("line", OTHER_LINES)
def test_any_other_line_is_getfile(line: bytes) -> None:
    assert decided(line)[0] is Spoken.GETFILE
    assert spoken_by(line) is Spoken.GETFILE


@pytest.mark.parametrize("case", [*VALID_REQUESTS, *INVALID_REQUESTS], ids=lambda case: case.name)
def test_the_getfile_corpus_is_getfile_but_for_what_is_http(case: RequestCase) -> None:
    assert decided(case.data)[0] is (Spoken.HTTP if case.name == "http-request" else Spoken.GETFILE)


@pytest.mark.parametrize("case", [*VALID_REQUESTS, *INVALID_REQUESTS], ids=lambda case: case.name)
def test_no_cut_changes_the_answer(case: RequestCase) -> None:
    whole = decided(case.data)[0]
    assert {spoken_by(case.data[:size]) for size in range(len(case.data) + 1)} <= {Spoken.UNDECIDED, whole}


@pytest.mark.parametrize("case", INCOMPLETE_REQUESTS, ids=lambda case: case.name)
def test_half_a_getfile_request_does_not_lean_to_http(case: RequestCase) -> None:
    assert not leans_to_http(case.data)


@pytest.mark.parametrize("case", [case for case in READ if case.requests], ids=lambda case: case.name)
def test_good_http_requests_are_http_at_every_cut(case: HttpCase) -> None:
    line_end = case.data.index(b"\n", 2) + 1
    assert decided(case.data) == (Spoken.HTTP, line_end)


@pytest.mark.parametrize(
    "data", [b"G", b"GET", b"GETFILE", b"HEAD", b"", b"\r", b"\r\n", b"GET ", b"\0 /", b" /", b"A" * 33 + b" /"]
)
def test_what_could_be_anything_does_not_lean_to_http(data: bytes) -> None:
    assert not leans_to_http(data)


@pytest.mark.parametrize(
    "data", [b"GET /", b"GET /a HTTP/1.", b"HEAD http:", b"OPTIONS *", b"\r\nGET /", b"GETFILES /"]
)
def test_a_method_and_a_target_lean_to_http(data: bytes) -> None:
    assert leans_to_http(data)


def test_an_endless_line_is_http_which_has_an_answer_for_it() -> None:
    assert spoken_by(b"x" * (UNDECIDED_BYTES_MAX - 1)) is Spoken.UNDECIDED
    assert spoken_by(b"x" * UNDECIDED_BYTES_MAX) is Spoken.HTTP
    assert spoken_by(b"GETFILE GET /" + b"x" * UNDECIDED_BYTES_MAX) is Spoken.GETFILE
