"""No text of a client or an origin can break out of its line of the log, colour a terminal or turn its text round."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.daemonkit.logs import LogForm, configure
from tests.support.client import connect, receive_to_end
from tests.support.examples import examples
from tests.support.rawserver import RawServer, Step
from tests.support.whole_pair import WholePair, whole_pair

HOSTILE = (
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),  # C0, DEL, C1
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # which way text is written
    *"\u2028\u2029\u200b\ufeff\ufff9\U000e0001",  # ends of lines and paragraphs, what cannot be seen
    *"\ud800\udbff\udc00\udcff\udfff",  # halves of characters
    *"\\\"'=?%{ ",
)
texts = st.text(st.sampled_from(HOSTILE) | st.sampled_from("aé/:"), max_size=30)
raw = st.binary(max_size=20) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
values = texts | raw | st.lists(texts | raw, max_size=3) | st.dictionaries(texts, texts, max_size=2)


@contextmanager
def written(form: LogForm) -> Iterator[io.StringIO]:
    """What a daemon with this form of log writes."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.level
    handler = configure("debug", prog="webproxy", form=form, stream=stream)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def check(form: LogForm, lines: str) -> int:
    """Each line is one event; returns how many there are."""
    assert lines.endswith("\n") or not lines
    events = lines[:-1].split("\n") if lines else []
    for line in events:
        assert line.isprintable(), line
        if form is LogForm.JSON:
            assert json.loads(line)["prog"] == "webproxy"
        else:
            assert line.encode().decode().partition(" webproxy[")[1], line
    return len(events)


@pytest.mark.parametrize("form", LogForm)
@examples(50, deadline=None)
@given(event=texts, facts=st.dictionaries(texts, values, max_size=3), error=texts)
def test_wherever_it_stands(form: LogForm, event: str, facts: dict[str, Any], error: str) -> None:
    log = logging.getLogger("tests.strangers")
    log.propagate = False  # pytest keeps the root's records for its report, and xdist cannot send halves of characters
    with written(form) as stream:
        log.handlers = [one for one in logging.getLogger().handlers if getattr(one, "stream", None) is stream]
        try:
            raise ValueError(error)
        except ValueError as caught:
            extra = {f"fact {name}": value for name, value in facts.items()}
            log.warning("%s", event, extra={**extra, "reason": str(caught), "kind": error})
            log.error(event.replace("%", ""), exc_info=caught, stack_info=True)
            log.error("job failed", exc_info=caught, extra={"path": error.encode("utf-8", "surrogatepass")})
        assert check(form, stream.getvalue()) == 3


requests = st.one_of(
    st.builds(lambda path: b"GETFILE GET /" + path + b"\r\n\r\n", raw),
    st.builds(lambda path: b"GET /" + path + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", raw),
    st.builds(lambda host: b"GET http://" + host + b"/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", raw),
    st.builds(lambda host: b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n", raw),
    st.builds(
        lambda tag: (
            b"GET / HTTP/1.1\r\nHost: h\r\nIf-Range: " + tag + b"\r\nRange: " + tag + b"\r\nConnection: close\r\n\r\n"
        ),
        raw,
    ),
    st.builds(lambda method: method + b" /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", raw),
)
answers = st.one_of(
    st.builds(lambda reason: b"HTTP/1.1 503 " + reason + b"\r\nContent-Length: 0\r\n\r\n", raw),
    st.builds(lambda place: b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\nContent-Length: 0\r\n\r\n", raw),
    st.builds(lambda place: b"HTTP/1.1 302 Found\r\nLocation: http://" + place + b"/\r\n\r\n", raw),
    st.builds(lambda name: b"HTTP/1.1 200 OK\r\nContent-Length: " + name + b"\r\n\r\nabc", raw),
    st.builds(lambda name: b"HTTP/1.1 200 OK\r\nETag: " + name + b"\r\nVary: " + name + b"\r\n\r\nabc", raw),
    st.builds(lambda name: b"HTTP/1.1 206 X\r\nContent-Range: " + name + b"\r\nContent-Length: 9\r\n\r\nabc", raw),
    st.builds(lambda text: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + text, raw),
    st.builds(lambda text: text + b"\r\n\r\n", raw),
)


@pytest.mark.parametrize("form", LogForm)
def test_by_a_whole_proxy(form: LogForm) -> None:
    """What the request or the origin's answer says, wherever it goes wrong."""
    script: list[Step] = [b""]
    with RawServer(script) as origin, written(form) as stream:
        url = f"http://127.0.0.1:{origin.port}"
        with whole_pair(origin_url=url, request_timeout_s=0.2, keepalive_s=0.2) as pair:

            @examples(100, deadline=None)
            @given(requests, answers)
            def each_is_logged(request: bytes, answer: bytes) -> None:
                script[0] = answer
                ask(pair, request)
                check(form, stream.getvalue())

            each_is_logged()
            pair.settle()
        assert check(form, stream.getvalue()) > 6


def ask(pair: WholePair, request: bytes) -> None:
    """Send it all, and take what comes."""
    with connect(pair.port) as client, suppress(OSError):
        client.sendall(request)
        receive_to_end(client)
