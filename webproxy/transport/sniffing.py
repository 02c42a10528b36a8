"""PURE: protocol detection by the first bytes of a connection: getfile, or HTTP/1.x on the same port."""

from __future__ import annotations

import re
from enum import Enum

from webproxy.getfile.messages import SCHEME
from webproxy.http.syntax import METHOD

UNDECIDED_BYTES_MAX = 8192
"""A longer first line is not a getfile request, and HTTP has a response for it."""

# Some clients send a line end before a request (RFC 9112 section 2.2).
_is_http_line = re.compile(rb"(?:\r\n)?[^ \r\n]+ [^\r\n]* HTTP/[0-9]+\.[0-9]+\r?\n").match
_begins_http_line = re.compile(rb"(?:\r\n)?%s [/*h]" % METHOD).match


class Spoken(Enum):
    """The protocol of a connection."""

    GETFILE = "getfile"
    HTTP = "http"
    UNDECIDED = "undecided"


def spoken_by(data: bytes) -> Spoken:
    """The protocol of these first bytes. Anything that is neither is treated as getfile, whose refusal is shorter.

    Undecided only while the first line is incomplete: it is HTTP if it ends in a version (RFC 9112 section 3).
    """
    if data.startswith(SCHEME):
        return Spoken.GETFILE
    if _is_http_line(data):
        return Spoken.HTTP
    if b"\n" in data[2 if data.startswith(b"\r\n") else 0 : UNDECIDED_BYTES_MAX]:
        return Spoken.GETFILE
    return Spoken.UNDECIDED if len(data) < UNDECIDED_BYTES_MAX else Spoken.HTTP


def leans_to_http(data: bytes) -> bool:
    """Whether an incomplete first line looks like HTTP: a method, and the first byte of a target."""
    return _begins_http_line(data) is not None and not data.startswith(SCHEME)
