"""Can any value break out of its line, or be taken for something else?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmchannel.daemonkit.log_lines import console_line, escaped, field_name, field_value, value_text

HEAD = {
    "timestamp": "2026-01-02T03:04:05.678Z",
    "level": "info",
    "prog": "webproxy",
    "pid": 7,
    "logger": "webproxy.serving.parking",
    "event": "exchange done",
}


def test_line() -> None:
    line = console_line({**HEAD, "outcome": "hit", "sent_bytes": 8192, "path": "/a b", "origin": None})
    assert line == (
        "2026-01-02T03:04:05.678Z info     webproxy[7] webproxy.serving.parking: exchange done"
        ' outcome=hit sent_bytes=8192 path="/a b" origin=none'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines\r", '"two\\nlines\\r"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("\u202eleft", '"\\u202eleft"'),
        ("\udc80", '"\\udc80"'),
        ("Grüße", "Grüße"),
        (3, "3"),
        (True, "True"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/p?token=1&x=2", "/p?..."),
        (b"/p?token=1", "/p?..."),
        (b"/p?token=1\0partial", "/p?..."),
        ("http://h/p?a=b: nothing for 30.0 s", "http://h/p?...: nothing for 30.0 s"),
        ("'http://h/p?a=b' redirects to (/q?c?d)", "'http://h/p?...' redirects to (/q?...)"),
        ("/p?it's=1:2", "/p?..."),
        (["/p?a"], ["/p?..."]),
        ("/p?", "/p?"),
        ("/p what?no", "/p what?no"),
    ],
)
def test_no_line_shows_the_query_of_a_url(value: object, shown: object) -> None:
    assert field_value(value) == shown


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pid", "pid"),
        ("sent_bytes", "sent_bytes"),
        ("not found", "not_found"),
        ("http hit", "http_hit"),
        ("http fetched", "http_fetched"),
        ("http validated", "http_validated"),
        ("http stale", "http_stale"),
        ("http passed", "http_passed"),
        ("http purged", "http_purged"),
        ("http answered", "http_answered"),
        ("http not found", "http_not_found"),
        ("http uri-miss", "http_uri_miss"),
        ("http vary-miss", "http_vary_miss"),
        ("http request", "http_request"),
        ("http refused", "http_refused"),
        ("http error", "http_error"),
        ("http client gone", "http_client_gone"),
        ("http cut short", "http_cut_short"),
        ("failed OriginTimeout", "failed_OriginTimeout"),
    ],
)
def test_names_of_facts_are_words(name: str, word: str) -> None:
    """Those that operations.md explains among them."""
    assert field_name(name) == word


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_every_event_is_one_printable_line(event: str, name: str, value: str) -> None:
    assert console_line({**HEAD, "event": event, name: value}).isprintable()


@settings(deadline=None)
@given(st.text(), st.text())
def test_escapes_tell_texts_apart(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) == (one == other)
    assert (value_text(one) == value_text(other)) == (one == other)
