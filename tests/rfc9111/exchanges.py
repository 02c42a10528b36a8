"""A response that came at NOW and was stored, and what is done with a request some seconds later."""

from tests.support.http_values import NOW, request, response
from webproxy.caching.decision import Action, Decision, decide
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.caching.storability import store_response, storing_refused
from webproxy.caching.stored import StoredResponse

DATE = b"Date: Sat, 21 Nov 2026 10:00:00 GMT"
HOUR_AGO = b"Sat, 21 Nov 2026 09:00:00 GMT"
IN_AN_HOUR = b"Sat, 21 Nov 2026 11:00:00 GMT"
ETAG = b'ETag: "1"'


def kept(
    *lines: bytes, status: int = 200, delay_s: float = 0.0, options: CachingOptions = DEFAULT_OPTIONS
) -> StoredResponse:
    """What is stored of a response that came at NOW, `delay_s` after it was asked for."""
    return store_response(
        response(*lines, status=status), request_time=NOW - delay_s, response_time=NOW, options=options
    )


def decision_after(seconds: float, stored: StoredResponse, *wishes: bytes) -> Decision:
    """The decision on a GET with these field lines, that long after NOW."""
    return decide(request(*wishes), stored, NOW + seconds)


def action_after(seconds: float, stored: StoredResponse, *wishes: bytes) -> Action:
    """Its action alone."""
    return decision_after(seconds, stored, *wishes).action


def refusal(
    *lines: bytes,
    status: int = 200,
    method: bytes = b"GET",
    asked: tuple[bytes, ...] = (),
    options: CachingOptions = DEFAULT_OPTIONS,
) -> bytes:
    """Why the answer of these lines to a request of the lines `asked` is not stored; empty when it is."""
    return storing_refused(request(*asked, method=method), response(*lines, status=status), NOW, options)
