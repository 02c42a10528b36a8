"""PURE: which protocol the first bytes of a connection speak: getfile, or HTTP/1.x on the same port."""

from __future__ import annotations

import re
from enum import Enum

from webproxy.getfile.messages import SCHEME
from webproxy.http.syntax import METHOD

UNDECIDED_BYTES_MAX = 8192
"""A first line that is longer belongs to no getfile request, and HTTP has an answer for it."""

# Some clients send a line end before a request (RFC 9112 section 2.2).
_is_http_line = re.compile(rb"(?:\r\n)?[^ \r\n]+ [^\r\n]* HTTP/[0-9]+\.[0-9]+\r?\n").match
_begins_http_line = re.compile(rb"(?:\r\n)?%s [/*h]" % METHOD).match


class Spoken(Enum):
    """What a connection speaks."""

    GETFILE = "getfile"
    HTTP = "http"
    UNDECIDED = "undecided"


def spoken_by(data: bytes) -> Spoken:
    """What these first bytes speak. Whatever is neither is getfile, whose refusal is the shorter one.

    Undecided only while the first line is not whole: it is HTTP when it ends in a version (RFC 9112 section 3).
    """
    if data.startswith(SCHEME):
        return Spoken.GETFILE
    if _is_http_line(data):
        return Spoken.HTTP
    if b"\n" in data[2 if data.startswith(b"\r\n") else 0 : UNDECIDED_BYTES_MAX]:
        return Spoken.GETFILE
    return Spoken.UNDECIDED if len(data) < UNDECIDED_BYTES_MAX else Spoken.HTTP


def leans_to_http(data: bytes) -> bool:
    """Whether a first line that never came to its end was one of HTTP: a method, and the first byte of a target."""
    return _begins_http_line(data) is not None and not data.startswith(SCHEME)
