"""The time of one caching decision: what `decide` costs for a fresh hit, with the requests of browsers and curl."""

import timeit
from statistics import median

from webproxy.caching.decision import Action, decide
from webproxy.caching.stored import StoredResponse
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead

_CALLS, _REPEATS = 20_000, 7
_NOW = 1_000_000_000.0


def decision_us() -> float:
    """Microseconds for one decision, the median of several runs. Blocks for a moment."""
    request = RequestHead(
        method=b"GET",
        target=b"/8192-0.bin",
        version=(1, 1),
        fields=Fields([(b"Host", b"127.0.0.1:25362"), (b"User-Agent", b"bench/1.0"), (b"Accept", b"*/*")]),
    )
    stored = StoredResponse(
        status=200,
        fields=Fields(
            [
                (b"Date", b"Sun, 09 Sep 2001 01:46:30 GMT"),
                (b"Content-Type", b"application/octet-stream"),
                (b"Last-Modified", b"Sun, 09 Sep 2001 01:46:00 GMT"),
                (b"ETag", b'"3b9aca00-2000"'),
                (b"Cache-Control", b"max-age=86400"),
            ]
        ),
        request_time=_NOW - 10,
        response_time=_NOW - 10,
        initial_age_s=0,
        lifetime_s=86_400,
        body_bytes=8192,
    )
    assert decide(request, stored, _NOW).action is Action.HIT, "the timed decision is not a hit"
    runs = timeit.repeat(lambda: decide(request, stored, _NOW), number=_CALLS, repeat=_REPEATS)
    return median(runs) / _CALLS * 1e6
