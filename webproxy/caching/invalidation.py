"""PURE: what a response to an unsafe method invalidates (RFC 9111 section 4.4)."""

from __future__ import annotations

import re

from webproxy.http.messages import ResponseHead
from webproxy.http.urls import BadTarget, normalise_url

# Registered as safe (RFC 9110 section 9.2.1, RFC 3253, RFC 4918, RFC 5323). All others must be assumed to change the
# target resource.
SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"))

_has_scheme = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:").match


def invalidated_targets(method: bytes, target_url: bytes, response: ResponseHead) -> tuple[bytes, ...]:
    """The URLs whose stored responses must no longer be used without validation; the target comes first.

    `target_url` is absolute and normalised, and so are the results. Empty if the method is safe or the response is an
    error. Location and Content-Location are resolved against the target and count if they have the same origin:
    otherwise one site could evict another's responses.
    """
    if method in SAFE_METHODS or not 200 <= response.status <= 399:
        return ()
    targets = {target_url: None}
    origin = _origin(target_url)
    for name in (b"location", b"content-location"):
        for reference in response.fields.get_all(name):
            url = _resolved(target_url, reference)
            if url is not None and _origin(url) == origin:
                targets[url] = None
    return tuple(targets)


def invalidated_paths(method: bytes, authority: bytes, path: bytes, response: ResponseHead) -> tuple[bytes, ...]:
    """The same as paths, from the view of a client that knows the target as `path` on the host `authority`.

    An origin that receives the client's Host refers to itself by that name. http and https are treated alike, because a
    TLS terminator in front of us does not tell which one the client used.
    """
    paths: dict[bytes, None] = {}
    for scheme in (b"http", b"https"):
        known_as = normalise_url(b"%s://%s%s" % (scheme, authority, path))
        for url in invalidated_targets(method, known_as, response):
            paths[url[len(_origin(url)) :]] = None
    return tuple(paths)


def _resolved(base: bytes, reference: bytes) -> bytes | None:
    """The normalised URL that `reference` resolves to at `base`; None if it is not an http or https URL.

    The cases of RFC 3986 section 5.2.2. Dot segments are left to the normalisation, which also handles escaped ones.
    """
    reference = reference.partition(b"#")[0]
    without_query = base.partition(b"?")[0]
    if _has_scheme(reference):
        url = reference
    elif reference.startswith(b"//"):
        url = base.partition(b"//")[0] + reference
    elif reference.startswith(b"/"):
        url = _origin(base) + reference
    elif reference.startswith(b"?"):
        url = without_query + reference
    else:
        url = without_query.rpartition(b"/")[0] + b"/" + reference if reference else base
    try:
        return normalise_url(url)
    except BadTarget:
        return None


def _origin(url: bytes) -> bytes:
    """Scheme, host and port of a normalised URL (RFC 9110 section 4.3.1)."""
    return b"/".join(url.split(b"/", 3)[:3])
