"""Whole daemons against a naive model: after any history of requests and answers, what is served is what may be.

Nothing waits here: that a response is stale is told by Age. Lifetimes and ages are so far apart that the seconds which
a history takes do not matter. The cache is purged past the proxy, and started anew, in the middle of histories; what it
still has then is looked up, and must be what it had before, or less.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import Phase, example, given
from hypothesis import strategies as st

from shmchannel.deadline import Deadline
from tests.http.client import Reply
from tests.http.conftest import EACH_REQUEST_ITS_OWN
from tests.http.site import Site, daemons, origin_of
from tests.support.examples import examples
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.variants import new_variant, variant_key
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.store.cache_client import CacheClient
from webproxy.store.lookup import Lookup, ObjectLookup, StoredHit
from workloads.origin_stub import Route
from workloads.origin_stub.request import Request

LIFETIMES = {
    "": 0,
    "no-store": 0,
    "private": 0,
    "no-cache, max-age=600": 0,
    "max-age=200": 200,
    "max-age=600": 600,
    "max-age=600, must-revalidate": 600,
    "s-maxage=600, max-age=0": 600,
    "public, max-age=600": 600,
    "max-age=200, stale-while-revalidate=500": 200,
    "public, max-age=200, stale-while-revalidate=500": 200,
}
MEANWHILE_S = 500
FOR_NOBODY_ELSE = ("no-store", "private")
SHAREABLE = ("must-revalidate", "s-maxage", "public")
NEVER_STALE = ("must-revalidate", "s-maxage", "no-cache")
WISHES = ("", "", "", "no-cache", "max-age=0", "max-age=50", "max-stale", "min-fresh=300", "only-if-cached", "no-store")
EVICTIONS = ("the key", "the index", "variant 1", "variant 2", "the one without Vary")
METHODS = ("GET", "HEAD", "POST")
NOBODYS_LANGUAGE = "3"


@dataclass(frozen=True)
class Step:
    """One request, and what the origin would answer to it; or something that befalls the cache."""

    method: str = "GET"
    wish: str = ""
    authorized: bool = False
    language: str = "1"
    conditional: bool = False
    changes: bool = False
    varies: bool = False
    status: int = 200
    control: str = "max-age=600"
    age: int = 0
    evicts: str = ""


STEPS = st.builds(
    Step,
    method=st.sampled_from(("GET",) * 12 + ("HEAD", "HEAD", "POST", "PURGE", "SOFT", "SOFT", "EVICT", "EVICT")),
    wish=st.sampled_from(WISHES),
    authorized=st.sampled_from((False, False, True)),
    language=st.sampled_from("12"),
    conditional=st.booleans(),
    changes=st.sampled_from((False, False, True)),
    varies=st.booleans(),
    status=st.sampled_from((200, 200, 200, 404)),
    control=st.sampled_from(list(LIFETIMES)),
    age=st.sampled_from((0, 100, 400, 1000)),
    evicts=st.sampled_from(EVICTIONS),
)


# Histories that once failed.
WINDOW = "max-age=200, stale-while-revalidate=500"
VARY_WITH_A_304 = [Step(age=1000), Step(varies=True), Step(language="2", varies=True)]
VARY_LEFT_OUT = [Step(varies=True, age=1000), Step(changes=True), Step()]
SOFT_PURGE_BEFORE_A_WINDOW = [Step(control=WINDOW), Step(method="SOFT"), Step()]
FORBIDDEN_IN_A_WINDOW = [Step(control=WINDOW, age=400), Step(control="no-store"), Step()]
REPLACED_IN_A_WINDOW = [Step(control=WINDOW, age=400), Step(status=404, control=""), Step()]


@dataclass(frozen=True)
class Answer:
    """What is stored, by the model: the body's number and language, and what was last said of it."""

    version: int
    language: str
    step: Step
    number: int
    """Of the request that brought it."""
    barred: bool = False
    """Invalidated, or forbidden to be kept: the origin is asked before each use."""

    def is_fresh(self) -> bool:
        """RFC 9111 section 4.2."""
        return self.step.age < LIFETIMES[self.step.control]

    def may_serve(self, step: Step) -> bool:
        """RFC 9111 section 4 and RFC 5861 section 3, without waiting for the origin."""
        lifetime, age, control = LIFETIMES[self.step.control], self.step.age, self.step.control
        if self.barred or "no-cache" in control or step.wish in ("no-cache", "max-age=0"):
            return False
        if step.wish == "max-age=50" and age > 50:
            return False
        if step.wish == "min-fresh=300" and lifetime - age < 300:
            return False
        if self.is_fresh():
            return True
        if any(word in control for word in NEVER_STALE):
            return False
        meanwhile = "stale-while-revalidate" in control and age - lifetime < MEANWHILE_S
        return step.wish == "max-stale" or (meanwhile and step.wish in ("", "only-if-cached", "no-store"))


@dataclass
class World:
    """The origin's side of one URL, and the model of what the cache may have."""

    has_etag: bool
    version: int = 1
    step: Step = field(default_factory=Step)
    asked: list[Request] = field(default_factory=list)
    stored: dict[str, Answer | None] = field(default_factory=dict)
    """By the language that it was stored for; "" is the one that came without Vary.

    None: the index still names one that is gone. The one without Vary does not take its place: the origin has answered
    for that language by itself."""

    def body(self, version: int, language: str) -> bytes:
        """All bodies differ; those of versions also in their lengths."""
        return f"{language} of version ".encode() + b"x" * version

    def etag(self, version: int, language: str) -> str:
        """One for each body."""
        return f'"{language}-{version}"'

    def answer(self, request: Request) -> Route:
        """The origin's present answer."""
        self.asked.append(request)
        step, language = self.step, request.headers.get("language", "")
        headers = {"Cache-Control": step.control, "Age": str(step.age), "Number": str(len(self.asked))}
        if self.has_etag and step.status == 200:
            headers["ETag"] = self.etag(self.version, language)
        if step.varies:
            headers["Vary"] = "Language"
        return Route(body=self.body(self.version, language), status=step.status, headers=headers, methods=METHODS)

    def selected(self, language: str) -> tuple[str, Answer | None]:
        """The name and content of the response that a request selects (RFC 9111 section 4.1)."""
        name = language if language in self.stored else ""
        return name, self.stored.get(name)

    def is_validated(self, request: Request, step: Step) -> bool:
        """Whether the origin answers 304."""
        own = self.has_etag and step.status == 200
        return own and request.headers.get("if-none-match") == self.etag(self.version, step.language)

    def contacts_for(self, first: Request, step: Step) -> int:
        """How often the origin is asked: twice, when it says in a 304 that what is stored varies otherwise."""
        name, stored = self.selected(step.language)
        changed = stored is not None and bool(name) != step.varies and step.varies
        return 2 if changed and self.is_validated(first, step) else 1

    def is_kept(self, step: Step) -> bool:
        """Whether an answer to this request may be stored, and is of use."""
        forbidden = any(word in step.control for word in FOR_NOBODY_ELSE)
        authorized = step.authorized and not any(word in step.control for word in SHAREABLE)
        explicit = "max-age" in step.control or step.status == 200
        useful = (self.has_etag and step.status == 200) or LIFETIMES[step.control] > 0
        return not forbidden and not authorized and explicit and useful

    def note_head(self, step: Step) -> None:
        """The model after a request of a HEAD came to the origin (RFC 9111 section 4.3.5)."""
        name, stored = self.selected(step.language)
        if step.status != 200 or step.wish == "no-store" or stored is None:
            return
        same_etag = not self.has_etag or stored.language == step.language
        agrees = (stored.version, stored.step.status, same_etag) == (self.version, 200, True)
        if not agrees or not self.is_kept(step):
            self.stored[name] = replace(stored, barred=True)
        elif not name and step.varies:
            del self.stored[name]
        else:
            self.stored[name] = Answer(stored.version, stored.language, step, len(self.asked))

    def note(self, step: Step) -> None:
        """The model after a request of a GET came to the origin."""
        if step.wish == "no-store":
            return
        name, stored = self.selected(step.language)
        number = len(self.asked)
        if self.is_validated(self.asked[-1], step) and stored is not None:
            if self.is_kept(step):
                self.stored[name] = Answer(stored.version, stored.language, step, number)
            else:
                self.stored[name] = replace(stored, barred=True)
            return
        answer = Answer(self.version, step.language, step, number)
        if not self.is_kept(step):
            self.stored.pop(name, None)
            if name:
                self.stored[name] = None
        elif step.varies:  # it leaves the one without to the others
            self.stored[step.language] = answer
        else:
            self.stored.pop(step.language, None)
            self.stored[""] = answer


def fields_of(world: World, step: Step) -> list[str]:
    fields = [f"Language: {step.language}"]
    if step.wish:
        fields.append(f"Cache-Control: {step.wish}")
    if step.authorized:
        fields.append("Authorization: Basic eDp5")
    if step.conditional:
        fields.append(f"If-None-Match: {world.etag(world.version, step.language)}")
    return fields


@dataclass
class History:
    """One URL's."""

    site: Site
    path: str
    world: World

    def find(self, language: str) -> StoredHit | None:
        """The cache's response to such a request."""
        return self.look_up(language).found

    def look_up(self, language: str) -> Lookup:
        """That, and the index."""
        request = RequestHead(b"GET", self.path.encode(), (1, 1), Fields([(b"Language", language.encode())]))
        link = CacheClient(self.site.daemons.cache, patient=False)
        lookup = ObjectLookup(link).find(self.path.encode(), request, WATCHDOG_S)
        if lookup.found is not None:
            lookup.found.cancel_quietly()
        return lookup

    def settle(self, language: str) -> None:
        """Wait until the cache has what the model has: a client has its last byte a moment before the commit."""

        def agree() -> bool:
            found, (_, answer) = self.find(language), self.world.selected(language)
            if found is None or answer is None:
                return found is None and answer is None
            if answer.barred:
                return found.stored.invalidated or found.stored.always_validate
            body_bytes = len(self.world.body(answer.version, answer.language))
            is_it = found.stored.fields.get(b"number") == b"%d" % answer.number
            is_it = is_it and found.stored.body_bytes == body_bytes and not found.stored.invalidated
            return is_it and self.site.holds(self.path, exactly=b"\0" in found.key)

        _, answer = self.world.selected(language)
        wait_until(agree, what=f"in the cache: {answer}")

    def observe(self) -> None:
        """Forget the responses that have left the cache; none may have been added."""
        old, self.world.stored = self.world.stored, {}
        for language in (NOBODYS_LANGUAGE, *"12"):
            lookup = self.look_up(language)
            found, variants = lookup.found, lookup.index.variants if lookup.index is not None else ()
            if found is None:
                if any(one.selecting == ((b"language", language.encode()),) for one in variants):
                    self.world.stored[language] = None
                continue
            name = language if found.stored.selecting else ""
            answer = old.get(name)
            assert answer is not None, found.stored
            assert found.stored.fields.get(b"number") == b"%d" % answer.number or answer.barred
            self.world.stored[name] = answer

    def evict(self, what: str) -> None:
        """Remove one object past the proxy."""
        key = self.path.encode()
        selecting = {
            "variant 1": ((b"language", b"1"),),
            "variant 2": ((b"language", b"2"),),
            "the one without Vary": (),
        }.get(what)
        if selecting is not None:
            key = variant_key(key, new_variant(selecting, None).id)
        elif what == "the index":
            key += b"\0"
        self.site.daemons.cache.purge(key, Deadline.after(WATCHDOG_S))
        self.observe()

    def run(self, step: Step) -> None:
        """One step."""
        world = self.world
        if step.method == "EVICT":
            return self.evict(step.evicts)
        world.step = step
        world.version += step.changes
        if step.method in ("PURGE", "SOFT", "POST"):
            return self.purge(step)
        before = len(world.asked)
        reply = self.site.get(self.path, *fields_of(world, step), method=step.method)
        _, stored = world.selected(step.language)
        if stored is None or not stored.may_serve(step):
            return self.check_contact(step, reply, before, stored)
        assert reply.is_hit, reply
        self.check_body(step, reply, stored.version, stored.language, stored.step.status)
        assert reply.age is not None
        assert stored.step.age <= reply.age < stored.step.age + 60
        if stored.is_fresh() or step.wish in ("max-stale", "no-store"):
            assert len(world.asked) == before, "the origin was asked for nothing"
        else:
            self.follow_validation(step, before)
        return None

    def check_contact(self, step: Step, reply: Reply, before: int, stored: Answer | None) -> None:
        """The origin was asked, unless the client would not have it."""
        world = self.world
        if step.wish == "only-if-cached":
            assert (len(world.asked), reply.status) == (before, 504)
            return
        assert len(world.asked) > before, (reply, stored)
        expected = world.contacts_for(world.asked[before], step) if step.method == "GET" else 1
        assert len(world.asked) == before + (1 if step.wish == "no-store" else expected)
        validated_language = step.language if stored is None else stored.language
        served_stored = step.method == "GET" and step.wish != "no-store" and world.is_validated(world.asked[-1], step)
        language = validated_language if served_stored else step.language
        self.check_body(step, reply, world.version, language, step.status)
        if step.method == "GET":
            world.note(step)
        elif reply.status == 200:  # a 304 was for the client's own condition
            world.note_head(step)
        self.settle(step.language)
        if step.varies:  # one without Vary at the key itself has made room
            self.observe()

    def follow_validation(self, step: Step, before: int) -> None:
        """Wait for the validation that nobody waits for.

        A request that finds the fetch before it still ending begins none: ask again, by requests that wait for nothing.
        """
        world = self.world

        def asked(count: int) -> Callable[[], bool]:
            return lambda: len(world.asked) >= before + count

        again = replace(step, method="GET", wish="only-if-cached")

        def begun() -> bool:
            with suppress(AssertionError):
                return wait_until(asked(1), 0.2)
            self.site.get(self.path, *fields_of(world, again))
            return asked(1)()

        wait_until(begun, what="the validation")
        expected = world.contacts_for(world.asked[before], step)
        wait_until(asked(expected), what="the origin asked once more")
        world.note(replace(step, method="GET", wish=""))
        self.settle(step.language)
        assert len(world.asked) == before + expected
        if step.varies:
            self.observe()

    def purge(self, step: Step) -> None:
        """PURGE and POST."""
        soft = step.method == "SOFT"
        method = "PURGE" if soft else step.method
        reply = self.site.get(self.path, *(["X-Purge: soft"] if soft else []), method=method)
        assert reply.status == (200 if method == "PURGE" else step.status)
        if soft:
            self.world.stored = {name: one and replace(one, barred=True) for name, one in self.world.stored.items()}
        elif method == "PURGE" or step.status == 200:
            self.world.stored.clear()

    def check_body(self, step: Step, reply: Reply, version: int, language: str, status: int) -> None:
        """It is that body, or a 304 for it."""
        etag = self.world.etag(version, language)
        if reply.status == 304:
            assert step.conditional
            assert self.world.has_etag
            assert reply.get("etag") == etag == self.world.etag(self.world.version, step.language)
            return
        assert reply.status == status
        assert reply.whole
        if step.method == "GET":
            assert reply.body == self.world.body(version, language)


def test_histories(tmp_path: Path) -> None:
    numbers = itertools.count()
    with daemons(tmp_path, env=EACH_REQUEST_ITS_OWN) as living, origin_of(living) as site:
        # Without shrinking: what fails by waiting in vain would be waited for again and again.
        @given(st.booleans(), st.lists(STEPS, min_size=2, max_size=14))
        @example(has_etag=True, steps=VARY_WITH_A_304)
        @example(has_etag=True, steps=VARY_LEFT_OUT)
        @example(has_etag=True, steps=SOFT_PURGE_BEFORE_A_WINDOW)
        @example(has_etag=True, steps=FORBIDDEN_IN_A_WINDOW)
        @example(has_etag=True, steps=REPLACED_IN_A_WINDOW)
        @examples(150, phases=(Phase.explicit, Phase.reuse, Phase.generate))
        def histories(has_etag: bool, steps: list[Step]) -> None:
            world = World(has_etag)
            path = site.put(Route(choose=world.answer, methods=METHODS), path=f"/h{next(numbers)}")
            history = History(site, path, world)
            for step in steps:
                history.run(step)

        histories()


@pytest.mark.parametrize("keeps", [True, False], ids=["store", "memory"])
def test_histories_over_a_restart_of_the_cache(tmp_path: Path, keeps: bool) -> None:
    """Several histories at once, so that one restart is in the middle of all of them."""
    numbers = itertools.count()
    where = ("--store", str(tmp_path / "store")) if keeps else ()

    with daemons(tmp_path, cache=where, env=EACH_REQUEST_ITS_OWN) as living, origin_of(living) as site:
        holders = [living.holder]

        @given(st.lists(st.tuples(st.lists(STEPS, max_size=4), st.lists(STEPS, max_size=4)), min_size=8, max_size=12))
        @examples(3, phases=(Phase.explicit, Phase.reuse, Phase.generate))
        def histories(pairs: list[tuple[list[Step], list[Step]]]) -> None:
            histories = []
            for number in range(len(pairs)):
                world = World(has_etag=number % 2 == 0)
                path = site.put(Route(choose=world.answer, methods=METHODS), path=f"/r{next(numbers)}")
                histories.append(History(site, path, world))
            for history, (steps, _) in zip(histories, pairs, strict=True):
                for step in steps:
                    history.run(step)
            assert holders.pop().stop() == 0
            holders.append(living.yard.start_cache(*where))
            for history, (_, steps) in zip(histories, pairs, strict=True):
                history.observe()
                for step in steps:
                    history.run(step)

        histories()
