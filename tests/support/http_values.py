"""Heads and stored responses for tests of the HTTP rules, written as short as they are thought of."""

from typing import Any

from webproxy.caching.stored import StoredResponse
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead, ResponseHead

NOW = 1_795_255_200.0
"""Sat, 21 Nov 2026 10:00:00 GMT: when the tests take place."""


def fields(*lines: bytes) -> Fields:
    """Of lines `Name: value`."""
    pairs = [line.partition(b":") for line in lines]
    return Fields([(name, value.strip()) for name, _, value in pairs])


def request(*lines: bytes, method: bytes = b"GET", target: bytes = b"/x") -> RequestHead:
    """A request with these field lines."""
    return RequestHead(method=method, target=target, version=(1, 1), fields=fields(*lines))


def response(*lines: bytes, status: int = 200) -> ResponseHead:
    """A response with these field lines."""
    return ResponseHead(status, fields(*lines))


def stored_response(*lines: bytes, status: int = 200, **others: Any) -> StoredResponse:
    """A response that was asked for and came ten seconds before NOW, and is fresh for a minute."""
    values = {"request_time": NOW - 11, "response_time": NOW - 10, "initial_age_s": 1, "lifetime_s": 60} | others
    return StoredResponse(status=status, fields=fields(*lines), **values)
