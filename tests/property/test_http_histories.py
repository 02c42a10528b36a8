"""Whole daemons against a naive model: after any history of requests and answers, what is served is what may be.

Nothing waits here: that a response is stale is told by Age. Lifetimes and ages are so far apart that the seconds which
a history takes do not matter.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.http.client import Reply
from tests.http.site import Site, daemons, origin_of
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.cachelink import CacheLink
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.lookup import ObjectLookup
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
}
FOR_NOBODY_ELSE = ("no-store", "private")
SHAREABLE = ("must-revalidate", "s-maxage", "public")
NEVER_STALE = ("must-revalidate", "s-maxage", "no-cache")
WISHES = ("", "", "", "no-cache", "max-age=0", "max-age=50", "max-stale", "min-fresh=300", "only-if-cached", "no-store")


@dataclass(frozen=True)
class Step:
    """One request, and what the origin would answer to it."""

    method: str = "GET"
    wish: str = ""
    authorized: bool = False
    language: str = "1"
    conditional: bool = False
    changes: bool = False
    status: int = 200
    control: str = "max-age=600"
    age: int = 0


STEPS = st.builds(
    Step,
    method=st.sampled_from(("GET",) * 8 + ("HEAD", "POST", "PURGE")),
    wish=st.sampled_from(WISHES),
    authorized=st.booleans(),
    language=st.sampled_from("12"),
    conditional=st.booleans(),
    changes=st.booleans(),
    status=st.sampled_from((200, 200, 200, 404)),
    control=st.sampled_from(list(LIFETIMES)),
    age=st.sampled_from((0, 100, 400, 1000)),
)


@dataclass(frozen=True)
class Answer:
    """What is stored, by the model: the body's number, and what was last said of it."""

    version: int
    step: Step
    number: int
    """Of the request that brought it."""

    def may_serve(self, step: Step) -> bool:
        """RFC 9111 section 4, without asking the origin."""
        lifetime, age, control = LIFETIMES[self.step.control], self.step.age, self.step.control
        if "no-cache" in control or step.wish in ("no-cache", "max-age=0"):
            return False
        if step.wish == "max-age=50" and age > 50:
            return False
        if step.wish == "min-fresh=300" and lifetime - age < 300:
            return False
        if age < lifetime:
            return True
        return step.wish == "max-stale" and not any(word in control for word in NEVER_STALE)


@dataclass
class World:
    """The origin's side of one URL, and the model of what the cache may have."""

    has_etag: bool
    varies: bool
    version: int = 1
    step: Step = field(default_factory=Step)
    asked: list[Request] = field(default_factory=list)
    stored: dict[str, Answer] = field(default_factory=dict)

    def body(self, version: int, language: str) -> bytes:
        """All bodies differ, also in their lengths."""
        return f"{language} of version ".encode() + b"x" * version

    def etag(self, version: int, language: str) -> str:
        """One for each body."""
        return f'"{language}-{version}"'

    def answer(self, request: Request) -> Route:
        """What the origin says now."""
        self.asked.append(request)
        step, language = self.step, request.headers.get("language", "")
        headers = {"Cache-Control": step.control, "Age": str(step.age), "Number": str(len(self.asked))}
        if self.has_etag and step.status == 200:
            headers["ETag"] = self.etag(self.version, language)
        if self.varies:
            headers["Vary"] = "Language"
        methods = ("GET", "HEAD", "POST")
        return Route(body=self.body(self.version, language), status=step.status, headers=headers, methods=methods)

    def name(self, step: Step) -> str:
        """What of a request selects a response."""
        return step.language if self.varies else ""

    def note_head(self, step: Step) -> None:
        """The model after a request of a HEAD came to the origin (RFC 9111 section 4.3.5)."""
        name = self.name(step)
        stored = self.stored.get(name)
        if step.status != 200 or step.wish == "no-store" or stored is None:
            return
        if (stored.version, stored.step.status) == (self.version, 200):
            self.note(step)
        if self.stored.get(name) is stored:  # not updated, so it is marked
            del self.stored[name]

    def note(self, step: Step) -> None:
        """The model after a request of a GET came to the origin."""
        name, request = self.name(step), self.asked[-1]
        own = self.has_etag and step.status == 200
        validated = request.headers.get("if-none-match") == self.etag(self.version, step.language) and own
        forbidden = any(word in step.control for word in FOR_NOBODY_ELSE) or step.wish == "no-store"
        authorized = step.authorized and not any(word in step.control for word in SHAREABLE)
        explicit = "max-age" in step.control or step.status == 200
        useful = own or LIFETIMES[step.control] > 0
        if validated and (forbidden or authorized):
            self.stored.pop(name, None)
        elif not (forbidden or authorized) and explicit and useful:
            self.stored[name] = Answer(self.version, step, len(self.asked))


def fields_of(world: World, step: Step) -> list[str]:
    fields = [f"Language: {step.language}"]
    if step.wish:
        fields.append(f"Cache-Control: {step.wish}")
    if step.authorized:
        fields.append("Authorization: Basic eDp5")
    if step.conditional:
        fields.append(f"If-None-Match: {world.etag(world.version, step.language)}")
    return fields


def check_body(world: World, step: Step, reply: Reply, version: int, status: int) -> None:
    etag = world.etag(version, step.language)
    if reply.status == 304:
        assert step.conditional
        assert world.has_etag
        assert reply.get("etag") == etag == world.etag(world.version, step.language)
        return
    assert reply.status == status
    assert reply.whole
    if step.method == "GET":
        language = step.language if world.varies else reply.body[:1].decode()
        assert reply.body == world.body(version, language)


def settle(site: Site, path: str, world: World, step: Step) -> None:
    """Wait until the cache has what the model has: a client has its last byte a moment before the commit."""
    answer = world.stored.get(world.name(step))
    if answer is None:
        return
    lies_beside = world.varies or answer.step.status != 200
    request = RequestHead(b"GET", path.encode(), (1, 1), Fields([(b"Language", step.language.encode())]))
    body_bytes = len(world.body(answer.version, step.language))

    def has_it() -> bool:
        lookup = ObjectLookup(CacheLink(site.daemons.cache, patient=False)).find(path.encode(), request, WATCHDOG_S)
        if lookup.found is None:
            return False
        lookup.found.leave()
        stored = lookup.found.stored
        is_it = stored.fields.get(b"number") == b"%d" % answer.number and stored.body_bytes == body_bytes
        return is_it and site.holds(path, exactly=lies_beside)

    wait_until(has_it, what=f"{answer} in the cache")


def run(site: Site, path: str, world: World, step: Step) -> None:
    world.step = step
    world.version += step.changes
    before = len(world.asked)
    reply = site.get(path, *fields_of(world, step), method=step.method)
    contacts = len(world.asked) - before
    if step.method in ("PURGE", "POST"):
        assert reply.status == (200 if step.method == "PURGE" else step.status)
        if step.method == "PURGE" or step.status == 200:
            world.stored.clear()
        return
    stored = world.stored.get(world.name(step))
    if step.wish == "only-if-cached":
        assert contacts == 0
        assert reply.status == 504 or stored is not None
    if contacts == 0 and reply.status != 504:
        assert stored is not None, reply
        assert stored.may_serve(step), reply
        check_body(world, step, reply, stored.version, stored.step.status)
        assert reply.age is not None
        assert stored.step.age <= reply.age < stored.step.age + 60
        return
    assert stored is None or not stored.may_serve(step), "the origin was asked for nothing"
    if reply.status != 504:
        assert contacts == 1
        check_body(world, step, reply, world.version, step.status)
        if step.method == "GET":
            world.note(step)
            settle(site, path, world, step)
        elif reply.status == 200:  # a 304 was for the client's own condition
            world.note_head(step)


def test_histories(tmp_path: Path) -> None:
    numbers = itertools.count()
    with daemons(tmp_path, env={"WEBPROXY_ORIGIN_TRIES": "1"}) as living, origin_of(living) as site:
        # Without shrinking: what fails by waiting in vain would be waited for again and again.
        @given(st.booleans(), st.booleans(), st.lists(STEPS, min_size=2, max_size=12))
        @settings(max_examples=30, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
        def histories(has_etag: bool, varies: bool, steps: list[Step]) -> None:
            world = World(has_etag, varies)
            path = site.put(Route(choose=world.answer, methods=("GET", "HEAD", "POST")), path=f"/h{next(numbers)}")
            for step in steps:
                run(site, path, world, step)

        histories()
