"""PURE: fields that apply to one connection only, and are not forwarded (RFC 9110 section 7.6.1)."""

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

# Meant for every recipient: a sender must not list them in Connection (section 7.6.1), and removing one would change
# what the message means or where it goes.
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
    """The names not to be forwarded, in lower case: HOP_BY_HOP and those listed in Connection."""
    connection = fields.get(b"connection")
    if connection is None:
        return HOP_BY_HOP
    listed = {option.lower() for option in split_list(connection)}
    return HOP_BY_HOP | (listed - _NEVER_LISTED)


def end_to_end(fields: Fields) -> Fields:
    """The fields that are forwarded to the next recipient, or stored (RFC 9111 section 3.1)."""
    names = hop_by_hop_names(fields)
    return fields if names.isdisjoint(fields.names()) else fields.without(names)
