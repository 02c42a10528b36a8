"""PURE: what a proxy says of itself in a request that goes on, and which requests end here (RFC 9110 section 7.6).

Via has the proxy's name, and a comment with the mark of this very process: proxies of one name may stand in a row,
but a request that bears our own mark has come round (section 7.6.3).
"""

from __future__ import annotations

from typing import NamedTuple

from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead

_COUNTED = frozenset((b"OPTIONS", b"TRACE"))
_FORWARDS_MAX = 1_000_000


class Via(NamedTuple):
    """The name of a proxy, and what tells it from all others."""

    name: bytes
    mark: bytes

    def member(self, version: tuple[int, int]) -> bytes:
        """Our member of Via, for a request that came by this version of HTTP."""
        return b"%d.%d %s (%s)" % (*version, self.name, self.mark)

    def came_round(self, fields: Fields) -> bool:
        """Whether a request was here before: its origin is this proxy itself, or leads back to it."""
        via = fields.get(b"via")
        return via is not None and b"(%s)" % self.mark in via


def ends_here(request: RequestHead) -> bool:
    """Whether an OPTIONS is for this proxy: for the server as such, or with no hop left (sections 9.3.7, 7.6.2)."""
    return request.method == b"OPTIONS" and (request.target == b"*" or _hops_left(request) == 0)


def counted_down(request: RequestHead) -> Fields:
    """The request's fields with one hop less, for the methods whose hops are counted (section 7.6.2)."""
    left = _hops_left(request)
    return request.fields.replaced(b"Max-Forwards", b"%d" % (left - 1)) if left else request.fields


def _hops_left(request: RequestHead) -> int | None:
    if request.method not in _COUNTED:
        return None
    value = request.fields.get(b"max-forwards")
    if value is None or not value.isdigit():
        return None
    return int(value) if len(value) < len(str(_FORWARDS_MAX)) else _FORWARDS_MAX
