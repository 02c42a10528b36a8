"""hop_by_hop: what ends at a proxy, and what Connection cannot take away."""

import pytest

from tests.support.http_values import fields
from webproxy.caching.hop_by_hop import HOP_BY_HOP, end_to_end, hop_by_hop_names


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_each_ends_here(name: bytes) -> None:
    assert end_to_end(fields(b"A: 1", name.title() + b": x", b"B: 2")) == fields(b"A: 1", b"B: 2")


def test_what_connection_lists_ends_here() -> None:
    lines = fields(b"Connection: close, Foo", b"foo: 1", b"Bar: 2", b"BAZ: 3", b"connection: baz,,", b"FOO: 4")
    assert end_to_end(lines) == fields(b"Bar: 2")


@pytest.mark.parametrize(
    "name",
    [
        b"Cache-Control",
        b"Content-Encoding",
        b"Content-Length",
        b"Content-Range",
        b"Content-Type",
        b"Expires",
        b"Host",
        b"Vary",
    ],
)
def test_what_is_for_every_recipient_cannot_be_listed(name: bytes) -> None:
    lines = fields(b"Connection: " + name + b", other", name + b": x", b"Other: y")
    assert end_to_end(lines) == fields(name + b": x")


def test_nothing_to_drop_is_nothing_to_copy() -> None:
    lines = fields(b"A: 1", b"Via: x")
    assert end_to_end(lines) is lines


def test_names() -> None:
    assert hop_by_hop_names(fields(b"A: 1")) is HOP_BY_HOP
    assert hop_by_hop_names(fields(b"Connection: X-A, TE")) == HOP_BY_HOP | {b"x-a"}
