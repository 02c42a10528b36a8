"""Whole daemons before an origin that breaks off and changes: no client gets a wrong byte, and no wrong one is stored.

Nothing is said here of how often the origin is asked: that is in tests/http. Bodies of all versions have one length, so
that nothing but the validator tells them apart.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import Phase, given
from hypothesis import strategies as st

from tests.http.client import Reply
from tests.http.site import Site, daemons, origin_of
from tests.support.client import ask
from tests.support.examples import examples
from tests.support.waiting import wait_until
from webproxy.getfile import Status
from webproxy.http.ranges import parse_content_range
from workloads.origin_stub import Framing, Route
from workloads.origin_stub.request import Request

SIZE = 300_000
VERSIONS = 8
BODIES = [random.Random(version).randbytes(SIZE) for version in range(VERSIONS)]
ENV = {"WEBPROXY_ORIGIN_TRIES": "2", "WEBPROXY_CONTINUE_FETCH_AFTER_SHARE": "0.9"}


@dataclass(frozen=True)
class Break:
    """The fate of one answer: the bytes sent before it ends, and whether the origin has changed by then."""

    at: int | None = None
    by_reset: bool = False
    changes: bool = False
    chunked: bool = False
    ignores_range: bool = False
    shifts_range: int = 0
    """By so much of what lies before or behind it, which the head says."""
    ignores_if_range: bool = False


@dataclass(frozen=True)
class Ask:
    """One request: the part that is wanted, by which protocol, and a purge before it."""

    first: int | None = None
    count: int = 1
    by_getfile: bool = False
    purges: str = ""


CUTS = st.one_of(st.none(), st.integers(0, SIZE), st.integers(SIZE // 2, SIZE))
BREAKS = st.builds(
    Break,
    at=CUTS,
    by_reset=st.booleans(),
    changes=st.sampled_from((False, False, True)),
    chunked=st.sampled_from((False, False, False, True)),
    ignores_range=st.sampled_from((False, False, False, True)),
    shifts_range=st.sampled_from((0, 0, 0, -2, 2)),
    ignores_if_range=st.booleans(),
)
ASKS = st.builds(
    Ask,
    first=st.one_of(st.none(), st.integers(0, SIZE - 1)),
    count=st.integers(1, SIZE),
    by_getfile=st.sampled_from((False, False, False, True)),
    purges=st.sampled_from(("", "", "", "soft", "hard")),
)


@dataclass
class World:
    """The origin's side of one path."""

    control: str
    breaks: list[Break]
    version: int = 0
    asked: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Route:
        """The next planned answer, and an honest one when no failure is left."""
        self.asked.append(request)
        now = self.breaks.pop(0) if self.breaks else Break()
        self.version = min(self.version + now.changes, VERSIONS - 1)
        body = BODIES[self.version]
        headers = {"Cache-Control": self.control, "ETag": f'"{self.version}"'}
        cut = {"reset_at": now.at} if now.by_reset else {"truncate_at": now.at}
        wanted = request.headers.get("range", "")
        is_meant = now.ignores_if_range or request.headers.get("if-range") == headers["ETag"]
        if wanted and is_meant and (now.shifts_range or now.ignores_if_range):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            if now.shifts_range:
                first += (SIZE - first if now.shifts_range > 0 else -first) // 2
            headers["Content-Range"] = f"bytes {first}-{SIZE - 1}/{SIZE}"
            chunks = Framing.CHUNKED  # no length gives it away
            return Route(status=206, body=body[first:], headers=headers, framing=chunks, **cut)  # type: ignore[arg-type]
        framing = Framing.CHUNKED if now.chunked else Framing.LENGTH
        ranges = not now.ignores_range
        return Route(body=body, headers=headers, framing=framing, ranges=ranges, **cut)  # type: ignore[arg-type]


def check(reply: Reply) -> None:
    """All bytes are of the version and offset that the head names, and they are complete or visibly short."""
    if reply.status in (502, 504):
        return
    assert reply.status in (200, 206), reply.status
    body = BODIES[int((reply.get("etag") or "").strip('"'))]
    first, end = 0, SIZE
    if reply.status == 206:
        said = parse_content_range((reply.get("content-range") or "").encode())
        assert said is not None
        assert said.size == SIZE
        first, end = said.first, said.end
    assert body[first:end].startswith(reply.body)
    assert not reply.whole or len(reply.body) == end - first


def run(site: Site, path: str, step: Ask) -> None:
    if step.purges:
        site.get(path, *(["X-Purge: soft"] if step.purges == "soft" else []), method="PURGE")
    if step.by_getfile:
        answer = ask(site.port, path)
        if answer.status is Status.OK:
            assert any(body.startswith(answer.body) for body in BODIES)
        return
    fields = [] if step.first is None else [f"Range: bytes={step.first}-{min(step.first + step.count, SIZE) - 1}"]
    reply = site.get(path, *fields)
    if step.first is not None and reply.status == 206:
        assert (reply.get("content-range") or "").startswith(f"bytes {step.first}-")
    check(reply)


def test_breaks(tmp_path: Path) -> None:
    numbers = itertools.count()
    with daemons(tmp_path, env=ENV) as living, origin_of(living) as site:
        # Without shrinking: what fails by waiting in vain would be waited for again and again.
        @given(
            st.sampled_from(("max-age=600", "max-age=0", "no-cache")),
            st.lists(BREAKS, min_size=1, max_size=8),
            st.lists(ASKS, min_size=2, max_size=8),
        )
        @examples(40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
        def histories(control: str, breaks: list[Break], steps: list[Ask]) -> None:
            world = World(control, list(breaks))
            path = site.put(Route(choose=world.answer), path=f"/p{next(numbers)}")
            for step in steps:
                run(site, path, step)
            world.breaks.clear()

            def is_stored() -> bool:
                reply = site.get(path)
                check(reply)
                return reply.whole and (reply.is_hit or reply.cache.get("fwd-status") == "304")

            wait_until(is_stored, what="all of it in the cache")
            assert ask(site.port, path).body in BODIES

        histories()
