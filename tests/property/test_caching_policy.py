"""Any history of requests and answers: what serves without the origin is what a naive reading of RFC 9111 allows.

The model below is written from the text of the RFC, slowly, on the parts from which the messages are made: it parses
nothing. Messages travel in whole seconds, so that its exact ages and the cache's rounded ones part nowhere; requests
come at any quarter of a second.
"""

from __future__ import annotations

import email.utils
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.http_values import NOW, request, response
from webproxy.caching.decision import Action, Decision, decide, stale_allowed_on_error
from webproxy.caching.storability import store_response, storing_refused
from webproxy.caching.stored import StoredResponse
from webproxy.http.messages import RequestHead, ResponseHead

Directive = tuple[str, str | None]


@dataclass(frozen=True)
class Answer:
    """An origin's response; times are seconds from its arrival."""

    status: int
    control: tuple[Directive, ...]
    date: int | None
    age: int | None
    expires: int | str | None
    modified: int | None
    etag: bool
    vary: str | None
    cookie: bool
    delay: int


@dataclass(frozen=True)
class Question:
    """A client's request, some seconds after the one before."""

    after: float
    control: tuple[Directive, ...]
    authorized: bool
    answer: Answer


_NUMBER = st.sampled_from(["0", "1", "2", "5", "10", "30", "100000", "99999999999"])
_MAYBE_NUMBER = st.one_of(_NUMBER, _NUMBER, _NUMBER, st.sampled_from(["x", "-1", None]))
_RESPONSE_AGES = st.sampled_from(["max-age", "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"])
_RESPONSE_FLAGS = st.sampled_from(
    ["no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate", "immutable", "unknown"]
)
_REQUEST_AGES = st.sampled_from(["max-age", "min-fresh", "max-stale", "stale-if-error"])
_REQUEST_FLAGS = st.sampled_from(["no-cache", "no-store", "only-if-cached", "no-transform"])


def _controls(
    ages: st.SearchStrategy[str], flags: st.SearchStrategy[str], most: int
) -> st.SearchStrategy[tuple[Directive, ...]]:
    flag = st.tuples(flags, st.none())
    return st.lists(st.one_of(st.tuples(ages, _MAYBE_NUMBER), st.tuples(ages, _NUMBER), flag), max_size=most).map(tuple)


_ANSWERS = st.builds(
    Answer,
    status=st.sampled_from([200, 200, 200, 200, 302, 404, 503, 599]),
    control=_controls(_RESPONSE_AGES, _RESPONSE_FLAGS, 3),
    date=st.sampled_from([None, 0, 0, 0, -1, -5, 3]),
    age=st.sampled_from([None, None, 0, 1, 4]),
    expires=st.sampled_from([None, None, None, -5, 0, 5, 40, "0"]),
    modified=st.sampled_from([None, None, -10, -100, 7]),
    etag=st.booleans(),
    vary=st.sampled_from([None, None, None, "accept", "*"]),
    cookie=st.sampled_from([False, False, False, True]),
    delay=st.sampled_from([0, 0, 1, 3]),
)
_QUESTIONS = st.builds(
    Question,
    after=st.sampled_from([0.0, 0.25, 0.75, 1.0, 2.0, 4.5, 9.75, 30.0, 200_000.0]),
    control=st.one_of(st.just(()), _controls(_REQUEST_AGES, _REQUEST_FLAGS, 3)),
    authorized=st.sampled_from([False, False, True]),
    answer=_ANSWERS,
)

# Answers that are nearly always stored, and questions that set terms, at the moments where it matters.
_SMALL = st.sampled_from(["0", "1", "2", "5", "10"])
_MORE = st.sampled_from(["stale-while-revalidate", "stale-if-error"])
_STORED_ANSWERS = st.builds(
    Answer,
    status=st.just(200),
    control=st.tuples(
        st.tuples(st.sampled_from(["max-age", "max-age", "s-maxage"]), _SMALL),
        st.one_of(
            st.tuples(_MORE, _SMALL),
            st.tuples(st.sampled_from(["no-cache", "must-revalidate", "public", "unknown"]), st.none()),
        ),
    ),
    date=st.just(0),
    age=st.sampled_from([None, 1]),
    expires=st.none(),
    modified=st.none(),
    etag=st.just(True),
    vary=st.none(),
    cookie=st.just(False),
    delay=st.sampled_from([0, 0, 1, -1]),
)
_TERMS = st.one_of(
    st.just(()),
    st.tuples(st.tuples(_REQUEST_AGES, _SMALL)),
    st.tuples(st.tuples(_REQUEST_AGES, _SMALL), st.tuples(_REQUEST_AGES, _MAYBE_NUMBER)),
    st.tuples(st.tuples(st.sampled_from(["no-cache", "only-if-cached", "max-stale"]), st.none())),
    st.tuples(st.just(("no-cache", None)), st.tuples(_REQUEST_AGES, _SMALL)),
)
_TERMED_QUESTIONS = st.builds(
    Question,
    after=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 4.5, 5.0, 5.5, 9.0, 10.0, 10.5, 15.0]),
    control=_TERMS,
    authorized=st.just(False),
    answer=_ANSWERS,
)


# The messages that these become.


def _line(control: tuple[Directive, ...], spelling: int) -> list[bytes]:
    """Cache-Control in one of the spellings that mean the same."""
    quote = '"' if spelling % 2 else ""
    texts = [name if value is None else f"{name}={quote}{value}{quote}" for name, value in control]
    joined = ("," if spelling % 3 else " , ").join(texts)
    return [f"Cache-Control: {joined.upper() if spelling % 5 == 4 else joined}".encode()] if control else []


def _date(time: float) -> str:
    return email.utils.formatdate(time, usegmt=True)


def _response(answer: Answer, came: float, spelling: int) -> ResponseHead:
    lines = _line(answer.control, spelling)
    lines += [f"Date: {_date(came + answer.date)}".encode()] if answer.date is not None else []
    lines += [f"Age: {answer.age}".encode()] if answer.age is not None else []
    lines += [f"Last-Modified: {_date(came + answer.modified)}".encode()] if answer.modified is not None else []
    if answer.expires is not None:
        expires = answer.expires if isinstance(answer.expires, str) else _date(came + answer.expires)
        lines.append(f"Expires: {expires}".encode())
    lines += [b'ETag: "1"'] if answer.etag else []
    lines += [f"Vary: {answer.vary}".encode()] if answer.vary else []
    lines += [b"Set-Cookie: a=b"] if answer.cookie else []
    return response(*lines, status=answer.status)


def _request(question: Question, spelling: int) -> RequestHead:
    return request(*_line(question.control, spelling), *([b"Authorization: x"] if question.authorized else []))


# The model.


def says(control: tuple[Directive, ...], name: str) -> bool:
    return any(one == name for one, _ in control)


def seconds(control: tuple[Directive, ...], name: str) -> int | None:
    """Of the first one (4.2.1); what is no number of seconds is None here as if nothing stood there."""
    for one, value in control:
        if one == name and value is not None and value.isdecimal():
            return min(int(value), 2**31)
    return None


def first_or_zero(control: tuple[Directive, ...], name: str) -> int | None:
    """Of a directive that makes things stale when it cannot be read."""
    for one, value in control:
        if one == name:
            return min(int(value), 2**31) if value is not None and value.isdecimal() else 0
    return None


def lifetime(answer: Answer) -> int:
    """4.2.1, 4.2.2."""
    for name in ("s-maxage", "max-age"):
        explicit = first_or_zero(answer.control, name)
        if explicit is not None:
            return explicit
    made = 0 if answer.date is None else answer.date
    if isinstance(answer.expires, str):
        return 0
    if answer.expires is not None:
        return max(0, answer.expires - made)
    if answer.modified is not None and (answer.status in (200, 404) or says(answer.control, "public")):
        unchanged = made - answer.modified
        floor = (
            0 if unchanged < 0 or answer.status == 404 else 5
        )  # heuristic_floor_s; what is missing may come at any time
        return max(floor, unchanged // 10)
    return 0


def age(answer: Answer, resident: float) -> float:
    """4.2.3."""
    apparent_age = max(0, 0 if answer.date is None else -answer.date)
    corrected_age = (answer.age or 0) + max(0, answer.delay)  # a clock that was set back is no delay
    return max(apparent_age, corrected_age) + resident


def forbids_storing(question: Question, answer: Answer) -> bool:
    """3, 3.5, 4.1, 5.2.1.5; and what we do not keep by choice: cookies that nobody said are for all."""
    control = answer.control
    explicit = says(control, "max-age") or says(control, "s-maxage") or says(control, "public")
    return (
        says(question.control, "no-store")
        or says(control, "no-store")
        or says(control, "private")
        or answer.vary == "*"
        or (question.authorized and not any(says(control, n) for n in ("public", "must-revalidate", "s-maxage")))
        or (answer.status not in (200, 404) and not explicit and answer.expires is None)
        or (answer.cookie and not says(control, "public") and not says(control, "s-maxage"))
    )


def never_stale(answer: Answer) -> bool:
    """4.2.4."""
    return any(says(answer.control, n) for n in ("no-cache", "must-revalidate", "proxy-revalidate", "s-maxage"))


def meets_the_wishes(question: Question, answer: Answer, resident: float) -> bool:
    """5.2.1, apart from max-stale; max-age=0 asks for validation."""
    max_age, min_fresh = first_or_zero(question.control, "max-age"), seconds(question.control, "min-fresh")
    old = age(answer, resident)
    return (
        not says(question.control, "no-cache")
        and (max_age is None or (max_age > 0 and old <= max_age))
        and (min_fresh is None or lifetime(answer) >= old + min_fresh)
    )


def most_stale(question: Question) -> float | None:
    """5.2.1.2: without a value any staleness will do; None: the request does not say."""
    for name, value in question.control:
        if name == "max-stale" and (value is None or value.isdecimal()):
            return 2**31 if value is None else min(int(value), 2**31)
    return None


def may_serve(question: Question, answer: Answer, resident: float) -> bool:
    """Without asking the origin first (4)."""
    if says(answer.control, "no-cache") or not meets_the_wishes(question, answer, resident):
        return False
    stale = age(answer, resident) - lifetime(answer)
    if stale < 0:
        return True
    accepted = most_stale(question)
    if never_stale(answer):
        return False
    if accepted is not None:
        return stale <= accepted
    wants_fresh = says(question.control, "max-age") or seconds(question.control, "min-fresh") is not None
    return not wants_fresh and stale < (first_or_zero(answer.control, "stale-while-revalidate") or 0)


def may_serve_on_error(question: Question, answer: Answer, resident: float) -> bool:
    """RFC 5861 section 4, 4.2.4; and what is fresh anyway."""
    if says(question.control, "no-cache") or says(answer.control, "no-cache"):
        return False
    stale = age(answer, resident) - lifetime(answer)
    window = max(first_or_zero(answer.control, "stale-if-error") or 0, seconds(question.control, "stale-if-error") or 0)
    return stale < 0 or (not never_stale(answer) and stale < window)


# A cache of one URL, driven by the rules.


@dataclass
class Cache:
    """What is stored by the rules, and of which answer."""

    stored: StoredResponse | None = None
    answer: Answer | None = None

    def ask(self, question: Question, now: float, spelling: int) -> Action:
        """One request, and the origin's answer when it is asked; both checked against the model."""
        head = _request(question, spelling)
        decision = decide(head, self.stored, now)
        if self.stored is None or self.answer is None:
            assert decision.action not in (Action.HIT, Action.STALE_HIT, Action.REVALIDATE)
        else:
            _check(decision, question, self.answer, now - self.stored.response_time)
            if decision.action in (Action.FETCH, Action.REVALIDATE):
                on_error = may_serve_on_error(question, self.answer, now - self.stored.response_time)
                assert stale_allowed_on_error(head, self.stored, 503, now) == on_error
        assert (decision.action is Action.ONLY_IF_CACHED_MISS) <= says(question.control, "only-if-cached")
        if decision.action in (Action.FETCH, Action.REVALIDATE):
            self._take(question, head, float(int(now)), spelling)
        return decision.action

    def _take(self, question: Question, head: RequestHead, came: float, spelling: int) -> None:
        answer = question.answer
        received = _response(answer, came, spelling)
        refusal = storing_refused(head, received, came)
        if forbids_storing(question, answer):
            assert refusal
        elif lifetime(answer) > 0 and not says(answer.control, "no-cache"):
            assert not refusal, refusal
        if not refusal:
            self.stored = store_response(received, request_time=came - answer.delay, response_time=came)
            self.answer = answer


def _check(decision: Decision, question: Question, answer: Answer, resident: float) -> None:
    served = decision.action in (Action.HIT, Action.STALE_HIT)
    assert served == may_serve(question, answer, resident)
    if served:
        assert decision.age_s == int(age(answer, resident))
    if decision.action is Action.STALE_HIT:
        assert age(answer, resident) >= lifetime(answer)
    if decision.action in (Action.FETCH, Action.REVALIDATE):
        validates = answer.etag or answer.modified is not None
        assert (decision.action is Action.REVALIDATE) == validates
    if says(question.control, "only-if-cached"):
        assert served or decision.action is Action.ONLY_IF_CACHED_MISS


@given(st.lists(st.tuples(_QUESTIONS, st.integers(0, 29)), min_size=1, max_size=8))
@examples(150)
def test_a_history_serves_what_the_rfc_allows(history: list[tuple[Question, int]]) -> None:
    cache, now = Cache(), NOW
    for question, spelling in history:
        now += question.after
        cache.ask(question, now, spelling)


@given(_STORED_ANSWERS, _TERMED_QUESTIONS, st.integers(0, 29))
@examples(600)
def test_a_question_about_a_stored_response(answer: Answer, question: Question, spelling: int) -> None:
    """Few kinds of answers, and every kind of terms, also at the very second where the decision changes."""
    cache = Cache()
    cache.ask(Question(0.0, (), False, answer), NOW, spelling)
    cache.ask(question, NOW + question.after, spelling)
