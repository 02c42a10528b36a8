"""PURE: OriginRequest, one request to an origin, and the header lines that libcurl is given for it.

Everything comes from the caller's fields; libcurl's own additions are switched off. The framing of the body is
determined by the body alone (RFC 9112 section 6), never by a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from webproxy.errors import OriginRefused
from webproxy.http.fields import Field, Fields
from webproxy.http.syntax import FRAMING_FIELDS, is_line_text, is_token
from webproxy.origin.health import HealthSettings

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})
# Fields that the client meant for the host it asked; another host must not learn them.
_FOR_ONE_HOST = (b"host", b"authorization", b"proxy-authorization", b"cookie")
# libcurl sends these unless told otherwise.
_LIBCURLS_OWN = (b"Accept", b"User-Agent", b"Expect")
_NO_FIELDS = Fields()
_HEALTH = HealthSettings()
GETFILE_FIELDS = Fields(((b"User-Agent", b"webproxy"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")))
"""The fields of every getfile request to an origin; of several variants of an object, getfile has the one for these."""


class BodySource(Protocol):
    """The source of a request's body."""

    @property
    def length(self) -> int | None:
        """Its length, sent as Content-Length; None if unknown: it is sent in chunks."""

    def read(self, size: int) -> bytes | None:
        """The next bytes, 1 to `size`, or none at the end; None if there are none now. Never blocks.

        An exception ends the transfer, which ends with it. The first call means that the origin is ready for the body.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRequest:
    """One request to an origin; `fields` are the end-to-end fields to send, without hop-by-hop fields.

    Content-Length and Transfer-Encoding in `fields` are ignored, and so is Expect without a body. A HEAD sends no body.
    """

    url: str
    method: bytes = b"GET"
    fields: Fields = _NO_FIELDS
    body: BodySource | None = None
    follow_redirects: bool = False
    """For a GET without a body only; otherwise a redirect is a response like any other."""
    named_by_operator: bool = True
    """The host is named in the settings, so its addresses need not be public."""
    holder: str = ""
    """Another process of this user is asked, over its private socket of this name, whatever host the URL names."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be repeated safely if its outcome is unknown (RFC 9110 section 9.2.2)."""
        return self.body is None and self.method in _IDEMPOTENT

    @property
    def sends_body(self) -> bool:
        """Whether there is content, if only of length 0: methods that define it announce it (RFC 9110 section 8.6)."""
        return self.method != b"HEAD" and (self.body is not None or self.method in _WITH_CONTENT)

    @property
    def expects_continue(self) -> bool:
        """Whether to wait for the origin's consent before sending the body (RFC 9110 section 10.1.1)."""
        return self.body is not None and b"expect" in self.fields


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginLimits:
    """How one origin is asked, and the limits of one try in seconds, bytes and hops."""

    connect_s: float = 5.0
    stall_s: float = 30.0
    redirects: int = 5
    object_bytes_max: int | None = None
    """None: a body of any length is accepted."""
    health: HealthSettings = _HEALTH
    """When it is taken for failing."""
    tls_verify: bool = True
    ca_file: str | None = None
    """The certificate authorities to trust; None for the system's."""
    add_fields: tuple[Field, ...] = ()
    """Replace the request's fields of these names; like the two above, for the origin's own host only."""


def getfile_request(url: str) -> OriginRequest:
    """The request for a getfile client: the object as it is, wherever the origin has moved it."""
    return OriginRequest(url=url, fields=GETFILE_FIELDS, follow_redirects=True)


def fields_for(request: OriginRequest, added: tuple[Field, ...], *, elsewhere: bool) -> Fields:
    """The fields to send: the request's, with `added` replacing those of equal names.

    `elsewhere`: a redirect led to another host, which gets neither `added` nor the fields meant for the first host.

    Raises:
        OriginRefused: an invalid name, or a line end or NUL in a value (RFC 9110 sections 5.1, 5.5).
    """
    dropped = FRAMING_FIELDS if request.expects_continue else FRAMING_FIELDS | {b"expect"}
    if elsewhere:
        fields = request.fields.without((*dropped, *_FOR_ONE_HOST))
    else:
        kept = request.fields.without((*dropped, *(name.lower() for name, _ in added)))
        fields = Fields((*kept.lines, *added))
    for name, value in fields:
        if not is_token(name) or not is_line_text(value):
            raise OriginRefused(f"{request.url}: the field {name!r} cannot be sent")
    if not is_token(request.method) or request.method == b"CONNECT":
        raise OriginRefused(f"{request.url}: the method {request.method!r} cannot be sent")
    return fields


def header_lines(fields: Fields) -> list[bytes]:
    """The lines in libcurl's notation: a semicolon marks an empty field, a bare colon suppresses a field of its own."""
    lines = [b"%s: %s" % field if field[1] else field[0] + b";" for field in fields]
    lines += [name + b":" for name in _LIBCURLS_OWN if name.lower() not in fields]
    return lines
