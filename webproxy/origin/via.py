"""PURE: the fields of a forwarded request, with Via and Max-Forwards; requests that end here (RFC 9110 section 7.6).

Via contains the proxy's name, and a comment that identifies this very process. Proxies of the same name can therefore
be chained, while a request with our own comment has looped (section 7.6.3).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.routing import Target

_COUNTED = frozenset((b"OPTIONS", b"TRACE"))
_FORWARDS_MAX = 1_000_000
_NOT_FORWARDED = (b"host", b"expect")


def mark_of(process: str) -> bytes:
    """The mark of the process that has this name as the holder of leases, so that others can tell it."""
    return blake2b(process.encode(), digest_size=8).hexdigest().encode()


def came_through(fields: Fields, mark: bytes) -> bool:
    """Whether a request has passed the process with this mark."""
    via = fields.get(b"via")
    return via is not None and b"(%s)" % mark in via


class Via(NamedTuple):
    """The name of a proxy, and the mark that identifies its process."""

    name: bytes
    mark: bytes

    def member(self, version: tuple[int, int]) -> bytes:
        """Our member of Via, for a request received in this version of HTTP."""
        return b"%d.%d %s (%s)" % (*version, self.name, self.mark)

    def forwarded(self, request: RequestHead, target: Target) -> Fields:
        """A client's fields as forwarded (RFC 9110 section 7.6): without hop-by-hop fields, with our Via."""
        kept = end_to_end(counted_down(request)).without(_NOT_FORWARDED)
        if target.host is not None:
            kept = kept.with_line(b"Host", target.host)
        return kept.with_line(b"Via", self.member(request.version))

    def came_round(self, fields: Fields) -> bool:
        """Whether a request has looped: its origin is this proxy itself, or leads back to it."""
        return came_through(fields, self.mark)


def ends_here(request: RequestHead) -> bool:
    """Whether an OPTIONS is for this proxy: for the server as such, or with no hop left (sections 9.3.7, 7.6.2)."""
    return request.method == b"OPTIONS" and (request.target == b"*" or _hops_left(request) == 0)


def counted_down(request: RequestHead) -> Fields:
    """The request's fields with Max-Forwards decremented, for the methods that use it (section 7.6.2)."""
    left = _hops_left(request)
    return request.fields.replaced(b"Max-Forwards", b"%d" % (left - 1)) if left else request.fields


def _hops_left(request: RequestHead) -> int | None:
    if request.method not in _COUNTED:
        return None
    value = request.fields.get(b"max-forwards")
    if value is None or not value.isdigit():
        return None
    return int(value) if len(value) < len(str(_FORWARDS_MAX)) else _FORWARDS_MAX
