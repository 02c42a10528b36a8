"""PURE: the choices that RFC 9111 leaves to the operator of a cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CachingOptions:
    """The options of a shared cache; the defaults do nothing that would surprise an origin."""

    heuristic_fraction: float = 0.1
    """Heuristic lifetime as a fraction of the time since Last-Modified (section 4.2.2)."""
    heuristic_ceiling_s: int = 86_400
    """The longest heuristic lifetime."""
    heuristic_floor_s: int = 5
    """The shortest, for what is there: the fraction of the age of a file that was just published is nothing."""
    negative_lifetime_s: int = 0
    """Lifetime of a 404, 405, 410, 414 or 501 without explicit freshness and without Last-Modified.

    0, so that a newly published file does not stay missing."""
    stale_if_error_default_s: int = 0
    """The window of stale-if-error (RFC 5861 section 4) for responses that do not specify one."""
    stale_if_disconnected_s: int = 86_400
    """How long a stale response may be served while its origin cannot be reached (section 4.2.4)."""
    store_set_cookie: bool = False
    """Store responses with Set-Cookie even without `public` or `s-maxage`."""
    targeted_control: bool = False
    """CDN-Cache-Control, if present in a response, replaces Cache-Control and Expires (RFC 9213)."""


DEFAULT_OPTIONS = CachingOptions()
