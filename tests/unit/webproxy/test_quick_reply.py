"""QuickReply: holds for as long as the rules would give the same age, and the shelf the same object."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.shelf import ShelfWatch
from tests.support.http_values import NOW, stored_response
from webproxy import quick_reply
from webproxy.caching.freshness import current_age
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.quick_reply import KnownRequest, QuickReply, recognise_nothing


class Watch:
    """Stands for a ShelfWatch."""

    def __init__(self, holds: bool) -> None:
        self._holds = holds

    def holds(self) -> bool:
        return self._holds


def reply_at(moment: float, *, there: bool = True) -> QuickReply:
    stored = stored_response(body_bytes=3)
    watch = cast("ShelfWatch", Watch(there))
    age_s = current_age(stored, moment)
    return QuickReply(b"/x", b"head", None, closes=False, stored=stored, age_s=age_s, watch=watch)


@given(made=st.floats(NOW - 5, NOW + 5), asked=st.floats(NOW - 5, NOW + 5))
def test_holds_at_its_age_only(made: float, asked: float) -> None:
    stored = stored_response(body_bytes=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_reply, "time", lambda: asked)
        assert reply_at(made).holds() == (current_age(stored, made) == current_age(stored, asked))
        assert not reply_at(asked, there=False).holds()


def test_a_known_request_tells_its_target() -> None:
    request = RequestHead(b"GET", b"/x?a", (1, 1), Fields(()))
    assert KnownRequest(request, reply_at(NOW)).target == b"/x?a"
    assert recognise_nothing(b"GET /x HTTP/1.1\r\n\r\n") is None
