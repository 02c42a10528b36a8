"""ForwardedRequest: what of a client's request is forwarded to an origin, where to, within which limits."""

from __future__ import annotations

from functools import lru_cache

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.client import OriginClient, OriginLimits
from webproxy.origin.routing import OriginRule, Target
from webproxy.origin.via import Via, counted_down

_NOT_FORWARDED = (b"host", b"expect")


class ForwardedRequest:
    """Turns a client's request into one to an origin: target, fields and limits."""

    def __init__(self, origin: OriginClient, via: Via, *, redirects: int, object_bytes_max: int) -> None:
        """The last two are limits for every request."""
        self.origin = origin
        self.via = via
        self._redirects = redirects
        self._object_bytes_max = object_bytes_max
        self.limits = lru_cache(maxsize=256)(self._limits)

    def _limits(self, rule: OriginRule) -> OriginLimits:
        """The limits of one origin's fetches."""
        return OriginLimits(
            connect_s=rule.connect_s,
            stall_s=rule.stall_s,
            redirects=self._redirects,
            object_bytes_max=self._object_bytes_max,
            tls_verify=rule.tls_verify,
            ca_file=rule.ca_file,
            add_fields=rule.add_fields,
        )

    def forwarded(self, request: RequestHead, target: Target) -> Fields:
        """A client's fields as forwarded (RFC 9110 section 7.6): without hop-by-hop fields, with our Via."""
        kept = end_to_end(counted_down(request)).without(_NOT_FORWARDED)
        if target.host is not None:
            kept = kept.with_line(b"Host", target.host)
        return kept.with_line(b"Via", self.via.member(request.version))
