"""CachedReply: holds for as long as the rules would give the same age, and the hot table the same object."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.objects.hot_table_reader import EntryVersion
from tests.support.http_values import NOW, stored_response
from webproxy.caching.freshness import current_age
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.transport import cached_reply
from webproxy.transport.cached_reply import CachedReply, MemoizedRequest, recognise_nothing


class Watch:
    """Stands for a EntryVersion."""

    def __init__(self, holds: bool) -> None:
        self._holds = holds

    def holds(self) -> bool:
        return self._holds


def reply_at(moment: float, *, there: bool = True) -> CachedReply:
    stored = stored_response(body_bytes=3)
    watch = cast("EntryVersion", Watch(there))
    age_s = current_age(stored, moment)
    return CachedReply(b"/x", b"head", None, closes=False, stored=stored, age_s=age_s, watch=watch)


@given(made=st.floats(NOW - 5, NOW + 5), asked=st.floats(NOW - 5, NOW + 5))
def test_holds_at_its_age_only(made: float, asked: float) -> None:
    stored = stored_response(body_bytes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached_reply, "time", lambda: asked)
        assert reply_at(made).holds() == (current_age(stored, made) == current_age(stored, asked))
        assert not reply_at(asked, there=False).holds()


def test_a_known_request_tells_its_target() -> None:
    request = RequestHead(b"GET", b"/x?a", (1, 1), Fields(()))
    assert MemoizedRequest(request, reply_at(NOW)).target == b"/x?a"
    assert recognise_nothing(b"GET /x HTTP/1.1\r\n\r\n") is None
