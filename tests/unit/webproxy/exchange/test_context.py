"""RequestContext: what is told of a request's key."""

from __future__ import annotations

from typing import cast

import pytest

from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import STAYS, ResponseHeads
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.http.urls import split_target
from webproxy.origin.routing import OriginRule, OriginTable, Target
from webproxy.transport.http1_connection import HttpConnection

TABLE = OriginTable([OriginRule(url="http://origin.test")])


@pytest.mark.parametrize(
    ("target", "told"),
    [(b"/x?y=1", None), (b"/a/../x", b"/x"), (b"/%e2%82", b"/%E2%82")],
    ids=["as asked", "dots", "escapes"],
)
def test_the_key_is_told_where_it_is_not_the_target(target: bytes, told: bytes | None) -> None:
    request = RequestHead(b"GET", target, (1, 1), Fields(((b"Host", b"h.test"),)))
    found = TABLE.find(split_target(target, b"h.test"))
    assert isinstance(found, Target)
    assert (
        RequestContext(cast("HttpConnection", None), request, STAYS, 0.0, ResponseHeads(b"us"), found).key_to_tell
        == told
    )
