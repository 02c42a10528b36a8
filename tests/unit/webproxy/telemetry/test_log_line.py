"""Lines of the access log: the formats, and that no value breaks out of its place or brings a credential in."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from webproxy.http.fields import Fields
from webproxy.telemetry.log_line import LINE_BYTES_MAX, LogFormat, fixed_parts, moment_text, whole_line
from webproxy.telemetry.requests import GETFILE, CacheResult, RequestRecord

MOMENT = (2026, 1, 2, 3, 4, 5)
_COMBINED = re.compile(rb'\S+ - - \[[^]"]+\] "[^"]*" \d+ (?:\d+|-) "[^"]*" "[^"]*"')


def fixed_part_of(form: LogFormat, record: RequestRecord, body_bytes: int) -> bytes:
    return b"".join(fixed_parts(form, record, body_bytes))


def record(**given_facts: Any) -> RequestRecord:
    facts: dict[str, Any] = {
        "method": b"GET",
        "target": b"/x?token=1",
        "protocol": b"HTTP/1.1",
        "fields": Fields([(b"User-Agent", b"curl/8"), (b"Authorization", b"Basic secret")]),
        "status": 200,
        "cache": CacheResult.HIT,
        "origin": "http://o.example",
        "outcome": "client gone",
    }
    return RequestRecord(**{**facts, **given_facts})


def line(form: LogFormat, one: RequestRecord, client: bytes = b"192.0.2.1", body_bytes: int = 5) -> bytes:
    moment = moment_text(form, MOMENT) + (b".007Z" if form is LogFormat.JSON else b"")
    return whole_line(form, fixed_part_of(form, one, body_bytes), client, moment, b"ab-1", 1_500_999, 1_000_000, 0)


def test_common() -> None:
    assert line(LogFormat.COMMON, record()) == (
        b'192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "GET /x?token=1 HTTP/1.1" 200 5\n'
    )


def test_combined() -> None:
    assert line(LogFormat.COMBINED, record()) == (
        b'192.0.2.1 - - [02/Jan/2026:03:04:05 +0000] "GET /x?token=1 HTTP/1.1" 200 5 "-" "curl/8"\n'
    )


def test_extended() -> None:
    told = b" cache=hit outcome=client_gone origin=http://o.example"
    assert line(LogFormat.EXTENDED, record()) == line(LogFormat.COMBINED, record())[:-1] + told + (
        b" time_us=1500 first_byte_us=1000 upstream_us=- id=ab-1\n"
    )


def test_json() -> None:
    assert json.loads(line(LogFormat.JSON, record())) == {
        "time": "2026-01-02T03:04:05.007Z",
        "client": "192.0.2.1",
        "id": "ab-1",
        "time_us": 1500,
        "first_byte_us": 1000,
        "upstream_us": None,
        "method": "GET",
        "target": "/x?token=1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "referer": None,
        "user_agent": "curl/8",
        "cache": "hit",
        "outcome": "client gone",
        "origin": "http://o.example",
    }


def test_what_was_no_request() -> None:
    nothing = RequestRecord(status=400)
    assert line(LogFormat.COMBINED, nothing, b"", 0).endswith(b'] "-" 400 - "-" "-"\n')
    assert line(LogFormat.COMBINED, nothing, b"", 0).startswith(b"- - - [")
    assert json.loads(line(LogFormat.JSON, nothing, b"", 0))["target"] is None


def test_getfile() -> None:
    asked = record(protocol=GETFILE, fields=None, status=404)
    assert b'"GET /x?token=1 GETFILE" 404 5 "-" "-"' in line(LogFormat.COMBINED, asked)


@pytest.mark.parametrize("form", LogFormat)
@pytest.mark.parametrize(
    ("target", "referer", "shown"),
    [
        (b"http://joe:secret@h/x", b"-", b"http://***@h/x"),
        (b"http:/joe:secret@h/x", b"-", b"http:/***@h/x"),
        (b"joe:secret@h:443", b"-", b"***@h:443"),
        (b"/@scope/name", b"-", b"/@scope/name"),
        (b"/x", b"https://joe:secret@h/", b"https://***@h/"),
    ],
)
def test_users_of_urls_are_hidden(form: LogFormat, target: bytes, referer: bytes, shown: bytes) -> None:
    told = line(form, record(target=target, fields=Fields([(b"Referer", referer), (b"Authorization", b"secret")])))
    assert b"secret" not in told
    assert shown in told or form is LogFormat.COMMON


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'a"b', rb"a\x22b"),
        (rb"a\x22b", rb"a\x5Cx22b"),
        (b"a\x1b[31m\n", rb"a\x1B[31m\x0A"),
        ("ü".encode(), rb"\xC3\xBC"),
    ],
)
def test_values_are_escaped(value: bytes, shown: bytes) -> None:
    told = line(LogFormat.COMBINED, record(fields=Fields([(b"User-Agent", value)])))
    assert told.endswith(b' "' + shown + b'"\n')


@pytest.mark.parametrize("form", LogFormat)
@given(st.binary(max_size=6000), st.binary(max_size=6000), st.binary(max_size=6000))
@examples(100)
def test_whatever_a_client_sends_it_is_one_whole_line(
    form: LogFormat, target: bytes, referer: bytes, agent: bytes
) -> None:
    fields = Fields([(b"Referer", referer), (b"User-Agent", agent)])
    told = line(form, record(method=b"M" * 300, target=target, fields=fields, origin="http://" + "o" * 3000))
    assert len(told) <= LINE_BYTES_MAX
    assert told.endswith(b"\n")
    assert told.count(b"\n") == 1
    assert all(32 <= code < 127 for code in told[:-1])
    if form is LogFormat.JSON:
        assert json.loads(told)["status"] == 200
    elif form is not LogFormat.COMMON:
        assert _COMBINED.match(told)
        assert re.search(rb"\\(?!x[0-9A-F]{2})", told) is None, "an escape was cut in two"


@pytest.mark.parametrize("form", LogFormat)
def test_long_values_are_cut(form: LogFormat) -> None:
    told = line(form, record(target=b"/" + b"x" * 9000))
    assert b"/" + b"x" * 2047 + b"..." in told
    assert b"x" * 2048 not in told


@pytest.mark.parametrize("before", [b"/", b"/a", b"/ab", b"/abc"])
def test_no_escape_is_cut_in_two(before: bytes) -> None:
    told = line(LogFormat.COMBINED, record(target=before + b"\xff" * 1000))
    assert re.search(rb"\\(?!x[0-9A-F]{2})", told) is None
    assert rb"\xFF... HTTP/1.1" in told
