"""HttpPlan: what a fetch runs under, asks for and makes of an answer; with whole daemons that is in tests/http."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.support.fetching import FakeFill, FakePartials, http_plan
from tests.support.http_values import NOW, fields, request, stored_response
from webproxy.errors import OriginBadReply
from webproxy.fetch.http_fetch import FetchRequest, HttpPlan
from webproxy.fetch.plan import Answered
from webproxy.fetch.spool import Spool
from webproxy.fetch.state import Event, State
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.routing import OriginRule, Target
from webproxy.store.fill import Fill, FillRequest, StoreToken
from webproxy.store.lookup import StoredHit

RULE = OriginRule(url="http://o")
TARGET = Target(b"/x", RULE, "http://o", b"/x", b"/x")


def test_what_a_fetch_runs_under() -> None:
    orders = [
        FetchRequest(TARGET, request()),
        FetchRequest(TARGET._replace(key=b"/y"), request()),
        FetchRequest(TARGET, request(), variant=b"0123456789abcdef"),
    ]
    assert len({order.fetch_key for order in orders}) == 3
    assert TARGET.key not in {order.fetch_key for order in orders}  # a getfile fetch runs under that


def test_the_validation_of_a_part_is_a_fetch_of_its_own() -> None:
    whole, part = stored_response(), stored_response(incomplete=True)
    keys = [FetchRequest(TARGET, request(), StoredHit(b"/x", stored, 1)).fetch_key for stored in (whole, part)]
    assert keys[0] == FetchRequest(TARGET, request()).fetch_key != keys[1]


# -- questions and answers -------------------------------------------------------------------------------------------
def plan(partials: FakePartials | None = None, **wanted: Any) -> HttpPlan:
    return http_plan(FetchRequest(TARGET, request(), **wanted), partials)


def answered(*lines: bytes, status: int = 200, length: int | None = 600) -> Answered:
    return Answered(OriginResponse(status=status, fields=fields(*lines), length=length), NOW - 1, NOW)


STALE = StoredHit(b"/x", stored_response(b'ETag: "a"', b"Vary: A", selecting=((b"a", b"1"),)), 7)


def test_it_begins_with_what_there_is() -> None:
    assert plan(validates=STALE).first() is Event.TO_VALIDATE
    assert plan().first() is Event.TO_COMPLETE
    assert plan(nothing_below=True).first() is Event.TO_FETCH


def test_what_is_asked() -> None:
    made = plan(FakePartials(), validates=None)
    assert made.partial.look(NOW)
    asked = {question: made.request(question, NOW).fields for question in (State.COMPLETE, State.WHOLE, State.RESUME)}
    assert asked[State.COMPLETE].get(b"range") == b"bytes=400-"
    assert {b"range" in asked[question] for question in (State.WHOLE, State.RESUME)} == {False}
    validating = plan(validates=STALE)
    assert validating.request(State.VALIDATE, NOW).fields.get(b"if-none-match") == b'"a"'
    assert b"if-none-match" not in validating.request(State.WHOLE, NOW).fields


@pytest.mark.parametrize(
    ("lines", "event"),
    [
        pytest.param([b'ETag: "a"', b"Vary: A"], Event.CONFIRMED, id="the same"),
        pytest.param([b'ETag: "b"'], Event.CONFIRMED_OTHER, id="another"),
        pytest.param([b'ETag: "a"', b"Vary: B"], Event.CONFIRMED_OTHER, id="the same for other requests"),
    ],
)
def test_a_304(lines: list[bytes], event: Event) -> None:
    assert plan(validates=STALE).judge(State.VALIDATE, answered(*lines, status=304)) is event


def test_a_304_that_answers_no_condition_is_no_answer() -> None:
    for made, question in ((plan(), State.WHOLE), (plan(validates=STALE), State.WHOLE)):
        with pytest.raises(OriginBadReply, match="without a condition"):
            made.judge(question, answered(status=304))


@pytest.mark.parametrize(
    ("status", "event"),
    [(206, Event.REST), (416, Event.NOT_REST), (200, Event.ANSWER), (503, Event.ANSWER), (404, Event.ANSWER)],
)
def test_an_answer_about_the_rest(status: int, event: Event) -> None:
    made = plan(FakePartials())
    made.partial.look(NOW)
    rest = answered(b'ETag: "a"', b"Content-Range: bytes 400-999/1000", status=status)
    assert made.judge(State.COMPLETE, rest) is event
    assert made.judge(State.WHOLE, rest) is Event.ANSWER


# -- what is told and stored -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "status", "place"),
    [
        pytest.param([b"Cache-Control: max-age=60"], 200, b"/x", id="at its key"),
        pytest.param([b"Cache-Control: max-age=60"], 404, b"/x\0", id="another status"),
        pytest.param([b"Cache-Control: max-age=60", b"Vary: A"], 200, b"/x\0", id="one that varies"),
        pytest.param([b"Cache-Control: no-store"], 200, None, id="nowhere"),
        pytest.param([b"Cache-Control: max-age=60", b"Vary: *"], 200, None, id="for no request"),
    ],
)
def test_where_an_answer_is_stored(lines: list[bytes], status: int, place: bytes | None) -> None:
    draft = plan().draft(answered(*lines, status=status))
    if place is None or place == b"/x":
        assert draft.place == place
    else:
        assert draft.place is not None
        assert draft.place.startswith(place)
    answer = plan().answer(draft, cast(Fill, FakeFill(FillRequest(b"/x", stored_response()), Spool(None))), 0)
    assert (answer.is_shareable, answer.is_stored, bool(answer.detail)) == (
        place is not None,
        place is not None,
        place is None,
    )


def test_without_a_cache_an_answer_is_shared_and_not_stored() -> None:
    made = plan()
    draft = made.draft(answered(b"Cache-Control: max-age=60"))
    answer = made.answer(draft, made.keep(draft, Spool(None), StoreToken()), 0)
    assert (answer.is_shareable, answer.is_stored, answer.detail) == (True, False, b"no cache connected")


@pytest.mark.parametrize(("status", "calls"), [(200, [("drop", b"/x")]), (404, [("drop", b"/x")]), (503, [])])
def test_an_answer_that_tells_what_there_is_makes_the_partial_response_useless(
    status: int, calls: list[tuple[object, ...]]
) -> None:
    partials = FakePartials()
    made = plan(partials)
    made.partial.look(NOW)
    made.end(made.draft(answered(status=status)), None, stored=False)
    assert partials.calls == calls


@pytest.mark.parametrize(
    ("control", "stored", "calls"),
    [
        pytest.param(b"max-age=60", True, [("drop", b"/x")], id="its place is taken"),
        pytest.param(b"max-age=60", False, [], id="it broke off"),
        pytest.param(b"no-store", False, [("drop", b"/x")], id="it may not stay"),
    ],
)
def test_what_becomes_of_a_partial_response_with_its_rest(
    control: bytes, stored: bool, calls: list[tuple[object, ...]]
) -> None:
    partials = FakePartials()
    made = plan(partials)
    made.partial.look(NOW)
    rest = answered(b'ETag: "a"', b"Content-Range: bytes 400-999/1000", b"Cache-Control: " + control, status=206)
    draft = made.completed(rest)
    assert (draft.completes, draft.response.status, draft.response.length) == (True, 200, 1000)
    assert (draft.place is None) == (control == b"no-store")
    made.end(draft, None, stored=stored)
    assert partials.calls == calls


FRESH = [b'ETag: "a"', b"Cache-Control: max-age=60"]


def test_the_head_of_the_rest_may_forbid_to_store_it() -> None:
    made = plan()
    draft = made.draft(answered(*FRESH))
    rest = made.combine(draft, answered(b'ETag: "a"', b"Cache-Control: max-age=90", status=206))
    assert (rest.place, rest.stored) == (b"/x", draft.stored)
    assert rest.combined is not None
    assert rest.combined.lifetime_s == 90
    assert made.combine(rest, answered(b'ETag: "a"', b"Cache-Control: no-store", status=206)).place is None


@pytest.mark.parametrize(
    ("lines", "length", "written", "keeps"),
    [
        pytest.param(FRESH, 200_000, 65_536, True, id="long enough"),
        pytest.param(FRESH, 200_000, 65_535, False, id="too short"),
        pytest.param(FRESH, 200_000, 200_000, False, id="all of it"),
        pytest.param(FRESH, None, 100_000, False, id="of unknown length"),
        pytest.param([b"Cache-Control: max-age=60"], 200_000, 100_000, False, id="of no validator"),
        pytest.param([b'ETag: "a"', b"Cache-Control: no-store"], 200_000, 100_000, False, id="not to be stored"),
    ],
)
def test_what_is_kept_of_a_body_that_broke_off(
    lines: list[bytes], length: int | None, written: int, *, keeps: bool
) -> None:
    made = plan()
    assert made.keeps(made.draft(answered(*lines, length=length)), written) is keeps
