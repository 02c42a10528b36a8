"""PURE: what an operator may choose where RFC 9111 leaves a choice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CachingOptions:
    """The choices of a shared cache; the defaults never serve what an origin could be surprised by."""

    heuristic_fraction: float = 0.1
    """Share of the time since Last-Modified that a response without explicit freshness stays fresh (section 4.2.2)."""
    heuristic_ceiling_s: int = 86_400
    """The longest lifetime that is guessed."""
    negative_lifetime_s: int = 0
    """Lifetime of a 404, 405, 410, 414 or 501 that says nothing of its freshness, not even by Last-Modified.

    0: a file that was just published must not stay missing."""
    stale_if_error_default_s: int = 0
    """The window of stale-if-error (RFC 5861 section 4) for responses that name none."""
    stale_if_disconnected_s: int = 86_400
    """How long after its freshness a response may serve while its origin cannot be reached (section 4.2.4)."""
    store_set_cookie: bool = False
    """Store a response that has Set-Cookie although it is not marked `public` or `s-maxage`."""
    targeted_control: bool = False
    """CDN-Cache-Control, where a response has it, replaces Cache-Control and Expires (RFC 9213)."""


DEFAULT_OPTIONS = CachingOptions()
