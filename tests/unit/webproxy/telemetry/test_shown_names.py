"""Paths are shown without what may be secret, and whatever a stranger sends, as short printable text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webproxy.telemetry.shown_names import PATH_CHARACTERS_MAX, shown_path


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/a/b.tar", "/a/b.tar"),
        (b"/a?token=secret", "/a"),
        (b"/a#secret", "/a"),
        (b"http://host/a?secret", "http://host/a"),
        (b"http://user:secret@host:80/a@b", "http://host:80/a@b"),
        (b"http://user:secret@host", "http://host"),
        (b"http://a@user:secret@host/", "http://host/"),
        (b"/x/http://user:kept@host/", "/x/http://user:kept@host/"),
        (b"user:secret@host:443", "/host:443"),
        (b"*", "/*"),
        (b"", "/"),
        (b"other", "/other"),
        (b"/a\r\n\x1b[31m b\xff", "/a???[31m?b?"),
        (b"/" + b"x" * 127, "/" + "x" * 127),
        (b"/" + b"x" * 128, "/" + "x" * 126 + "\u2026"),
    ],
)
def test_a_path_as_it_is_shown(target: bytes, shown: str) -> None:
    assert shown_path(target) == shown


@given(st.binary(max_size=400))
def test_whatever_is_sent_is_short_and_printable(target: bytes) -> None:
    found = shown_path(target)
    assert 0 < len(found) <= PATH_CHARACTERS_MAX
    assert found.isprintable()


def test_credentials_that_are_longer_than_what_is_shown() -> None:
    assert "secret" not in shown_path(b"http://" + b"secret" * 100 + b"@host/a")
