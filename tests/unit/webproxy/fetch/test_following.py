"""following: whom the plans of both protocols ask, and what they make of the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmchannel.objects.commands import FetchLease
from tests.support.fetching import NO_VARIANTS, fetch_means
from tests.support.http_values import fields, request, stored_response
from webproxy.errors import NotFollowed
from webproxy.fetch.follow_messages import NO_SUCH_OBJECT, Followed, response_lines
from webproxy.fetch.following import Following
from webproxy.fetch.getfile_fetch import FollowGetfilePlan
from webproxy.fetch.http_fetch import FetchRequest, FollowPlan, HitForMiss
from webproxy.fetch.plan import Answered
from webproxy.fetch.state import Event, State
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.fill import NO_FILL, StoreToken

LEASE = FetchLease(7, "gf-4711-00c0ffee")
RULE = OriginRule(url="http://origin", tries=3)
TARGET = Target(b"/x", RULE, "http://origin", b"/x", b"/x")
STORED = stored_response(b'ETag: "a"', b"Content-Type: text/plain")


def for_http() -> Following:
    return FollowPlan(FetchRequest(TARGET, request()), fetch_means(), HitForMiss())


def for_getfile() -> Following:
    return FollowGetfilePlan(b"/x", TARGET, fetch_means(), NO_VARIANTS)


Make = Callable[[], Following]
BOTH = pytest.mark.parametrize("make", [for_http, for_getfile])


def followed(make: Make) -> Following:
    plan = make()
    plan.follow(LEASE, 5.0)
    return plan


def answered(status: int = 200, lines: bytes = b"", length: int | None = 9) -> Answered:
    response = OriginResponse(status=status, fields=fields(*lines.split(b"\r\n")[:-1]), length=length)
    return Answered(response, 1.0, 2.0)


def told() -> Answered:
    return answered(lines=response_lines(Followed(STORED, is_shareable=True, is_common=False)))


@BOTH
def test_the_holder_is_asked_first_and_the_origin_for_the_rest(make: Make) -> None:
    plan = followed(make)
    assert (plan.follows, plan.lease, plan.tries, plan.first()) == (True, 7, RULE.tries + 1, Event.TO_FETCH)
    asked = plan.request(State.WHOLE, 0.0)
    assert asked.holder == LEASE.holder
    assert plan.limits_of(asked).health.failures_to_open == 0
    rest = plan.request(State.RESUME, 0.0)
    assert (rest.holder, rest.url) == ("", "http://origin/x")
    assert plan.limits_of(rest) is RULE.limits


@BOTH
def test_what_it_tells_is_passed_on_and_stored_by_nobody_else(make: Make) -> None:
    plan = followed(make)
    assert plan.judge(State.WHOLE, told()) is Event.ANSWER
    draft = plan.draft(told())
    assert (draft.stored, draft.place, draft.response.length) == (STORED, None, 9)
    assert draft.continuation is not None
    assert plan.keep(draft, None, StoreToken()) is NO_FILL  # type: ignore[arg-type]
    assert not plan.draft_may_wait
    assert not plan.keep_may_wait(draft)


def test_that_there_is_no_such_object_is_an_answer_in_getfile_alone() -> None:
    assert followed(for_getfile).judge(State.WHOLE, answered(NO_SUCH_OBJECT)) is Event.NOTHING_THERE
    with pytest.raises(NotFollowed, match="another protocol"):
        followed(for_http).judge(State.WHOLE, answered(NO_SUCH_OBJECT))
