"""StoredResponse: what is stored of a response besides its body, with everything later decisions need precomputed."""

from __future__ import annotations

from dataclasses import dataclass

from webproxy.http.fields import Fields

Selecting = tuple[tuple[bytes, bytes | None], ...]
"""The request fields named by the response's Vary: lower-case name; normalised value, or None if it was absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """Times are seconds: `*_time` since the epoch (the proxy's clock), `*_s` durations.

    `fields` are the end-to-end fields to be sent again, including Date: without hop-by-hop fields and those listed in
    Connection, without those withheld by `no-cache="..."` and `private="..."`, and without Age.
    """

    status: int
    fields: Fields
    reason: bytes = b""
    request_time: float
    """When the request for it, or for its last validation, was sent (RFC 9111 section 4.2.3)."""
    response_time: float
    """When its head, or that of its last validation, arrived."""
    initial_age_s: int
    """corrected_initial_age of RFC 9111 section 4.2.3."""
    lifetime_s: int
    """freshness_lifetime, computed when it was stored; 0 if it must be validated before every use."""
    heuristic: bool = False
    """The lifetime is heuristic (section 4.2.2)."""
    always_validate: bool = False
    """Unqualified no-cache (section 5.2.2.4): served only after validation, never stale."""
    never_stale: bool = False
    """must-revalidate, proxy-revalidate or s-maxage: never served stale (sections 5.2.2.2, 5.2.2.8, 5.2.2.10)."""
    stale_while_revalidate_s: int = 0
    """RFC 5861 section 3; without effect if `always_validate` or `never_stale`, as is the next one."""
    stale_if_error_s: int = 0
    """RFC 5861 section 4; the operator's default if the response does not specify it."""
    selecting: Selecting = ()
    body_bytes: int = 0
    """Length of the complete body, even if `incomplete`."""
    incomplete: bool = False
    """An incomplete response (section 3.3): the object has only the first bytes of the body."""
    authoritative: bool = False
    """The cache is its origin and has just checked the file, which counts as validation. Not stored."""
    invalidated: bool = False
    """Purged softly since it was stored: stale, whatever its lifetime says. Reported by the cache, not encoded here.

    The two windows above still start at the end of its lifetime: the time of the purge is not recorded."""
