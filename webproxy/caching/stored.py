"""StoredResponse: what is kept of a response beside its body, with all that a later decision needs worked out."""

from __future__ import annotations

from dataclasses import dataclass

from webproxy.http.fields import Fields

Selecting = tuple[tuple[bytes, bytes | None], ...]
"""The request's fields that the response's Vary names: lower-case name, normalised value or None when it was absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """Times are seconds: `*_time` since the epoch (the proxy's clock), `*_s` durations.

    `fields` are the end-to-end fields to be sent again, Date among them: without hop-by-hop and Connection-listed
    fields, without those that `no-cache="..."` and `private="..."` withhold, without Age.
    """

    status: int
    fields: Fields
    reason: bytes = b""
    request_time: float
    """When the request for it was sent, or for its last validation (RFC 9111 section 4.2.3)."""
    response_time: float
    """When its head came, or its last validation's."""
    initial_age_s: int
    """corrected_initial_age of RFC 9111 section 4.2.3."""
    lifetime_s: int
    """freshness_lifetime, worked out when it was stored; 0 when it must be validated each time."""
    heuristic: bool = False
    """The lifetime was guessed (section 4.2.2)."""
    always_validate: bool = False
    """no-cache that covers the whole response (section 5.2.2.4): serves after a validation only, never stale."""
    never_stale: bool = False
    """must-revalidate, proxy-revalidate or s-maxage: validated before it serves stale (sections 5.2.2.2, .8, .10)."""
    stale_while_revalidate_s: int = 0
    """RFC 5861 section 3; without effect when `always_validate` or `never_stale`, as is the next one."""
    stale_if_error_s: int = 0
    """RFC 5861 section 4; the operator's default when the response names none."""
    selecting: Selecting = ()
    body_bytes: int = 0
    """Of the complete response, also when it is incomplete."""
    incomplete: bool = False
    """Recorded as incomplete (section 3.3): the object has the first bytes of the body only."""
    authoritative: bool = False
    """The cache is its origin, and has looked at the file just now: that is its validation. Not stored."""
    marked: bool = False
    """A soft purge came since it was stored: stale, whatever its lifetime says. Told by the cache, not stored here.

    The windows of the two above go on from the end of its lifetime: nobody noted when the purge came."""
