"""state: the table of a fetch's steps, with plain values: every state and event, and that every path ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webproxy.fetch.state import IS_TOLD, STEPS, TAKES_BODY, Action, Event, ImpossibleStep, Progress, State

QUESTIONS = {State.VALIDATE, State.COMPLETE, State.WHOLE, State.RESUME}
OVER = {State.DONE, State.FAILED}
TELLS = {Action.TELL, Action.TELL_ABSENT, Action.CONFIRM}
REPORTS = {Action.LOOK, Action.ASK, Action.COPY_FIRST, Action.COPY, Action.FINISH}
"""Actions that lead to an event of their own."""


def walk(*events: Event, tries: int = 1) -> list[Action]:
    """What is done on a path from the beginning of a fetch to its end."""
    progress, done = Progress(tries - 1), list[Action]()
    for event in events:
        progress, actions = progress.after(event)
        done += actions
    assert progress.state in OVER
    return done


# -- every state, every event ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@pytest.mark.parametrize("event", list(Event), ids=lambda event: event.name)
def test_an_event_leads_on_or_cannot_happen(state: State, event: Event) -> None:
    progress = Progress(1, state)
    if event not in STEPS[state]:
        with pytest.raises(ImpossibleStep, match=f"{event.name} in {state.name}"):
            progress.after(event)
        return
    after, actions = progress.after(event)
    assert (after.state, actions) == STEPS[state][event]
    assert after.tries_left == (0 if event is Event.AGAIN else 1)
    asks = [action for action in actions if action in REPORTS]
    assert asks == list(actions[-1:] if asks else ()), "what reports an event comes last, and alone"
    assert (Action.ASK in actions) == (after.state in QUESTIONS)


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_every_state_can_be_reached_and_left(state: State) -> None:
    reached = {step.state for steps in STEPS.values() for step in steps.values()} | {State.NEW}
    assert state in reached
    assert (state in OVER) == (not STEPS[state])
    if state not in OVER:
        assert STEPS[state][Event.BROKE].state is State.FAILED, "nothing keeps a fetch from failing"


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_the_readers_are_told_once(state: State) -> None:
    """No step tells those who know already, and none leads back to where they are taken not to know."""
    for event, (after, actions) in STEPS[state].items():
        tells = TELLS & set(actions)
        if state in IS_TOLD:
            assert not tells, event
            assert after in IS_TOLD | {State.FAILED}, event
        elif after in IS_TOLD:
            assert len(tells) == 1, event
        else:
            assert not tells, event


def test_the_body_is_taken_only_where_one_was_drafted() -> None:
    """A body begins with a draft, or follows what was drafted before."""
    for state, steps in STEPS.items():
        for event, (after, actions) in steps.items():
            if after in TAKES_BODY and state not in TAKES_BODY | {State.COPY}:
                assert {Action.DRAFT, Action.COMBINE} & set(actions), (state, event)


# -- every path ends -------------------------------------------------------------------------------------------------
def test_without_another_try_no_state_is_visited_twice() -> None:
    """The table without AGAIN has no cycle: each state can be ordered behind those that lead to it."""
    rank: dict[State, int] = {}

    def rank_of(state: State, path: tuple[State, ...]) -> int:
        assert state not in path, path
        if state not in rank:
            steps = STEPS[state]
            after = [rank_of(step.state, (*path, state)) for event, step in steps.items() if event is not Event.AGAIN]
            rank[state] = 1 + max(after, default=0)
        return rank[state]

    assert rank_of(State.NEW, ()) <= len(State)


@given(tries=st.integers(1, 20), data=st.data())
def test_every_path_ends(tries: int, data: st.DataObject) -> None:
    progress, asked = Progress(tries - 1), 0
    for _ in range((len(State) - 1) * tries):
        events = [event for event in STEPS[progress.state] if event is not Event.AGAIN or progress.tries_left]
        progress, actions = progress.after(data.draw(st.sampled_from(events)))
        asked += Action.ASK in actions
        if progress.state in OVER:
            break
    assert progress.state in OVER
    assert asked <= tries - 1 + len(QUESTIONS)


# -- failures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", [state for state in State if state not in OVER], ids=lambda state: state.name)
@pytest.mark.parametrize("may_help", [False, True])
@pytest.mark.parametrize("can_resume", [False, True])
@pytest.mark.parametrize("tries_left", [0, 1])
def test_what_a_failure_leads_to(state: State, *, may_help: bool, can_resume: bool, tries_left: int) -> None:
    progress = Progress(tries_left, state)
    event = progress.failure(may_help=may_help, can_resume=can_resume)
    after, actions = progress.after(event)
    if event is Event.AGAIN:
        assert may_help
        assert tries_left == 1
        assert can_resume or state not in IS_TOLD
        assert actions == (Action.PAUSE, Action.ASK)
        assert (after.state is State.RESUME) == (state in IS_TOLD), "what was told is never asked for anew"
        assert after.tries_left == 0
    else:
        assert (after.state, actions) == (State.FAILED, ())
        assert not (may_help and tries_left and state in QUESTIONS and (can_resume or state not in IS_TOLD))


@pytest.mark.parametrize(
    ("broken", "asked"),
    [
        ((Event.TO_VALIDATE,), State.VALIDATE),
        ((Event.TO_COMPLETE, Event.PARTIAL_FOUND), State.COMPLETE),
        ((Event.TO_COMPLETE, Event.PARTIAL_FOUND, Event.REST), State.COMPLETE),
        ((Event.TO_COMPLETE, Event.PARTIAL_FOUND, Event.REST, Event.FIRST_COPIED), State.RESUME),
        ((Event.TO_COMPLETE, Event.NO_PARTIAL), State.WHOLE),
        ((Event.TO_FETCH, Event.BODY_AHEAD), State.WHOLE),
        ((Event.TO_FETCH, Event.NO_ANSWER), State.WHOLE),
        ((Event.TO_FETCH, Event.BODY_AHEAD, Event.FIRST_BYTES), State.RESUME),
        ((Event.TO_VALIDATE, Event.ANSWER), State.RESUME),
    ],
)
def test_what_is_asked_after_a_failure(broken: tuple[Event, ...], asked: State) -> None:
    progress = Progress(1)
    for event in broken:
        progress, _ = progress.after(event)
    assert progress.after(Event.AGAIN)[0].state is asked


def test_there_is_no_try_without_one_left() -> None:
    with pytest.raises(ImpossibleStep, match="0 tries left"):
        Progress(0, State.WHOLE).after(Event.AGAIN)


# -- whole paths -----------------------------------------------------------------------------------------------------
def test_a_miss_that_is_stored() -> None:
    done = walk(Event.TO_COMPLETE, Event.NO_PARTIAL, Event.ANSWER, Event.ENDED, Event.STORED)
    assert done == [Action.LOOK, Action.ASK, Action.DRAFT, Action.TELL, Action.FINISH, Action.SETTLE]


def test_a_getfile_miss() -> None:
    done = walk(Event.TO_FETCH, Event.BODY_AHEAD, Event.FIRST_BYTES, Event.ENDED, Event.NOT_TO_STORE)
    assert done == [Action.ASK, Action.DRAFT, Action.TELL, Action.FINISH]


def test_a_getfile_body_of_unknown_length_is_told_when_it_has_come() -> None:
    done = walk(Event.TO_FETCH, Event.BODY_AHEAD, Event.ENDED, Event.STORED)
    assert done == [Action.ASK, Action.DRAFT, Action.TELL, Action.FINISH, Action.SETTLE]


def test_a_getfile_absence_is_told_before_its_page_has_come() -> None:
    assert walk(Event.TO_FETCH, Event.NOTHING_THERE, Event.ENDED) == [Action.ASK, Action.TELL_ABSENT]


def test_a_validation() -> None:
    assert walk(Event.TO_VALIDATE, Event.CONFIRMED, Event.ENDED) == [Action.ASK, Action.CONFIRM]


def test_a_304_about_something_else_asks_for_less_and_less() -> None:
    """Down all four questions in one fetch, without another try."""
    done = walk(
        Event.TO_VALIDATE, Event.CONFIRMED_OTHER, Event.ENDED, Event.PARTIAL_FOUND, Event.NOT_REST, Event.ENDED,
        Event.ANSWER, Event.ENDED, Event.NOT_STORED,
    )  # fmt: skip
    assert [action for action in done if action in REPORTS] == [
        Action.ASK, Action.LOOK, Action.ASK, Action.ASK, Action.FINISH
    ]  # fmt: skip
    assert done[-1] is Action.REPLACE
    assert Action.DISCARD_PARTIAL in done


def test_a_partial_response_is_completed() -> None:
    done = walk(
        Event.TO_COMPLETE, Event.PARTIAL_FOUND, Event.REST, Event.FIRST_COPIED, Event.COPIED, Event.ENDED, Event.STORED
    )
    assert done == [
        Action.LOOK, Action.ASK, Action.COPY_FIRST, Action.DRAFT_COMPLETED, Action.TELL, Action.COPY, Action.FINISH,
        Action.SETTLE,
    ]  # fmt: skip


def test_a_partial_response_that_is_lost_before_anybody_knows_of_it() -> None:
    done = walk(
        Event.TO_COMPLETE, Event.PARTIAL_FOUND, Event.REST, Event.COPY_LOST, Event.ENDED, Event.ANSWER, Event.ENDED,
        Event.STORED,
    )  # fmt: skip
    assert done.count(Action.ASK) == 2
    assert done[done.index(Action.DISCARD_PARTIAL) + 1] is Action.ASK


def test_a_partial_response_that_is_lost_while_it_is_read_is_resumed() -> None:
    done = walk(
        Event.TO_COMPLETE, Event.PARTIAL_FOUND, Event.REST, Event.FIRST_COPIED, Event.COPY_LOST, Event.ENDED,
        Event.REST, Event.ENDED, Event.NOT_STORED,
    )  # fmt: skip
    assert done.count(Action.TELL) == 1
    assert Action.COMBINE in done


def test_a_body_that_broke_off_twice() -> None:
    done = walk(Event.TO_FETCH, Event.ANSWER, Event.AGAIN, Event.AGAIN, Event.REST, Event.ENDED, Event.STORED, tries=3)
    assert done == [
        Action.ASK, Action.DRAFT, Action.TELL, Action.PAUSE, Action.ASK, Action.PAUSE, Action.ASK, Action.COMBINE,
        Action.FINISH, Action.SETTLE,
    ]  # fmt: skip
