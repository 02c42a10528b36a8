"""PURE: what to do with a request, given what is stored for it (RFC 9111 sections 4 and 5.2.1)."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from webproxy.caching.directives import NO_WISHES, RequestDirectives, request_directives
from webproxy.caching.freshness import current_age
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.storability import has_content, has_validator, is_personal
from webproxy.caching.stored import StoredResponse
from webproxy.http.messages import Framing, RequestHead

ERROR_STATUSES = frozenset((500, 502, 503, 504))
"""Responses of an origin that stale-if-error covers (RFC 5861 section 4)."""


class Action(Enum):
    """What the caller has to do."""

    HIT = "serve the stored response"
    STALE_HIT = "serve the stored response and revalidate it in the background"
    REVALIDATE = "send the origin a request made conditional on the stored response"
    FETCH = "send the request to the origin; the response may be stored"
    ONLY_IF_CACHED_MISS = "answer 504"
    PASS = "send this request to the origin; neither store nor share the response"  # noqa: S105 - an action


# Bound once: looking up a member of an Enum costs more than using it.
HIT, STALE_HIT, REVALIDATE, FETCH, ONLY_IF_CACHED_MISS, PASS = Action


class Decision(NamedTuple):
    """A tuple, because every hit constructs one and a dataclass takes twice as long."""

    action: Action
    reason: bytes = b""
    """Why the request is forwarded, or would be: the value of `fwd` in Cache-Status (RFC 9211 section 2.2)."""
    age_s: int = 0


_PASS_METHOD = Decision(PASS, b"method")
_PASS_CONTENT = Decision(PASS, b"bypass")


def decide(
    request: RequestHead, stored: StoredResponse | None, now: float, *, other_variants: bool = False
) -> Decision:
    """What to do with a request; `stored` is the response that it selects (section 4.1), if any.

    `other_variants`: responses are stored for the URL, but none is selected. A request with Authorization may be
    answered by any stored response: one that must not be shared was not stored (section 3.5).
    """
    if request.method != b"GET" and request.method != b"HEAD":
        return _PASS_METHOD
    if request.framing is not Framing.NONE and has_content(request):
        return _PASS_CONTENT
    wishes = request_directives(request.fields)
    if stored is None:
        return _miss(wishes, b"vary-miss" if other_variants else b"uri-miss")
    age_s = current_age(stored, now)
    if age_s < stored.lifetime_s and wishes is NO_WISHES and not stored.invalidated:
        return Decision(HIT, b"", age_s)
    return _weigh(wishes, stored, age_s, now)


def stale_allowed_on_error(
    request: RequestHead,
    stored: StoredResponse,
    status: int | None,
    now: float,
    options: CachingOptions = DEFAULT_OPTIONS,
) -> bool:
    """Whether the stored response may be served instead of the origin's `status`; None: the origin did not respond.

    Either by stale-if-error in the request or the response (RFC 5861 section 4), or because the cache is disconnected
    and nothing forbids it (section 4.2.4).
    """
    if status is not None and status not in ERROR_STATUSES:
        return False
    if_error, if_disconnected = _stale_limits(request_directives(request.fields), stored, options)
    return now < (if_disconnected if status is None else if_error)


def answers_waiting(request: RequestHead, stored: StoredResponse, asked_at: float) -> bool:
    """Whether a response may serve a request that had come before it, at `asked_at`, and waited for it.

    The origin made it after that, so it may be stale from the start. Not if it says that it must be validated, or if
    the request is one user's, or wants more than that itself.
    """
    if asked_at > stored.response_time or stored.never_stale or stored.always_validate or is_personal(request):
        return False
    if stored.initial_age_s > stored.response_time - stored.request_time + 1:
        return False  # another cache had it already
    is_new = replace(stored, lifetime_s=stored.initial_age_s + 1)
    return decide(request, is_new, stored.response_time).action is HIT


def _miss(wishes: RequestDirectives, reason: bytes) -> Decision:
    if wishes.only_if_cached:
        return Decision(ONLY_IF_CACHED_MISS, reason)
    return Decision(PASS if wishes.no_store else FETCH, reason)


def _weigh(wishes: RequestDirectives, stored: StoredResponse, age_s: int, now: float) -> Decision:
    """The decision if the stored response is stale or the request is not unconditional."""
    if stored.authoritative:
        return Decision(HIT, b"", age_s)
    is_fresh = age_s < stored.lifetime_s and not stored.invalidated
    exact_age = stored.initial_age_s + max(0.0, now - stored.response_time)
    if _meets(wishes, stored, exact_age) and (is_fresh or _takes_stale(wishes, stored, exact_age)):
        return Decision(HIT, b"", age_s)
    if _may_serve_meanwhile(wishes, stored, exact_age):
        return Decision(STALE_HIT, b"", age_s)
    reason = b"request" if is_fresh else b"stale"
    if wishes.only_if_cached or wishes.no_store:  # no-store: its response must not update what is stored either
        return _miss(wishes, reason)._replace(age_s=age_s)
    return Decision(REVALIDATE if has_validator(stored.fields, stored.response_time) else FETCH, reason, age_s)


def _meets(wishes: RequestDirectives, stored: StoredResponse, exact_age: float) -> bool:
    """Whether the request's directives allow its use without validation, assuming it is fresh.

    max-age=0 demands validation even of a response received this instant (section 5.2.1.1: browsers reload with it).
    """
    if wishes.no_cache or wishes.max_age == 0:  # section 5.2.1.4
        return False
    if wishes.max_age is not None and exact_age > wishes.max_age:
        return False
    return wishes.min_fresh is None or stored.lifetime_s - exact_age >= wishes.min_fresh  # section 5.2.1.3


def _takes_stale(wishes: RequestDirectives, stored: StoredResponse, exact_age: float) -> bool:
    """max-stale (section 5.2.1.2), unless the response forbids it (section 4.2.4) or was purged softly."""
    if wishes.max_stale is None or stored.never_stale or stored.always_validate or stored.invalidated:
        return False
    return exact_age - stored.lifetime_s <= wishes.max_stale


def _may_serve_meanwhile(wishes: RequestDirectives, stored: StoredResponse, exact_age: float) -> bool:
    """stale-while-revalidate (RFC 5861 section 3), unless section 4.2.4 prohibits it.

    A request that limits age or staleness itself has been decided already (sections 5.2.1.1 to 5.2.1.4). A response
    invalidated by a soft purge is not served before it has been validated.
    """
    if stored.never_stale or stored.always_validate or stored.invalidated or wishes.no_cache:
        return False
    if wishes.max_age is not None or wishes.min_fresh is not None or wishes.max_stale is not None:
        return False
    return max(0.0, exact_age - stored.lifetime_s) < stored.stale_while_revalidate_s


def _stale_limits(wishes: RequestDirectives, stored: StoredResponse, options: CachingOptions) -> tuple[float, float]:
    """Until when it may be served on an error, and on a disconnection: at least as long as it is fresh."""
    if wishes.no_cache or stored.always_validate:
        return 0.0, 0.0
    fresh_until = stored.response_time - stored.initial_age_s + stored.lifetime_s
    if stored.never_stale:
        return (0.0, 0.0) if stored.invalidated else (fresh_until, fresh_until)
    window_s = max(stored.stale_if_error_s, wishes.stale_if_error or 0)
    if_error = 0.0 if stored.invalidated and window_s == 0 else fresh_until + window_s
    return if_error, fresh_until + max(window_s, options.stale_if_disconnected_s)
