"""PURE: which fields belong to one connection only, and end at a proxy (RFC 9110 section 7.6.1)."""

from __future__ import annotations

from webproxy.http.fields import Fields
from webproxy.http.syntax import split_list

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

# Meant for every recipient: a sender must not list them (section 7.6.1), and a message that lost one on the way would
# say something else, or go elsewhere.
_NEVER_LISTED = frozenset(
    (
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"expires",
        b"host",
        b"vary",
    )
)


def hop_by_hop_names(fields: Fields) -> frozenset[bytes]:
    """The lower-case names that end here: those of HOP_BY_HOP and those that Connection lists."""
    connection = fields.get(b"connection")
    if connection is None:
        return HOP_BY_HOP
    listed = {option.lower() for option in split_list(connection)}
    return HOP_BY_HOP | (listed - _NEVER_LISTED)


def end_to_end(fields: Fields) -> Fields:
    """The fields that go on to the next recipient, or are stored (RFC 9111 section 3.1)."""
    names = hop_by_hop_names(fields)
    return fields if names.isdisjoint(fields.names()) else fields.without(names)
