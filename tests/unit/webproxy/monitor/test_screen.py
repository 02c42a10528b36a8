"""The screen, driven by textual's own pilot: what is on it, in which size, after which keys."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any
from xml.etree import ElementTree

from textual.app import App
from textual.pilot import Pilot

from tests.support.overviews import SECOND_NS, page, process, reading, segment
from tests.support.waiting import WATCHDOG_S
from webproxy.admin.overview import Overview
from webproxy.monitor.history import History
from webproxy.monitor.screen import MonitorApp
from webproxy.monitor.views import PAGES
from webproxy.telemetry.metrics import REQUESTS

NEVER_S = 3600.0
"""Readings are taken when a key is pressed, and by the test."""


def screen_text(app: App[None]) -> str:
    """The text of the picture that textual exports of its screen, line by line."""
    lines: defaultdict[float, list[tuple[float, str]]] = defaultdict(list)
    for element in ElementTree.fromstring(app.export_screenshot()).iter("{http://www.w3.org/2000/svg}text"):
        lines[float(element.get("y", 0))].append((float(element.get("x", 0)), element.text or ""))
    return "\n".join("".join(text for _, text in sorted(lines[y])).replace("\xa0", " ").rstrip() for y in sorted(lines))


def show(
    take: Callable[[], Overview], scene: Callable[[MonitorApp, Pilot[None]], Coroutine[Any, Any, None]]
) -> int | None:
    """Play a scene before what `take` finds; returns the exit code."""
    seconds = iter(range(10**6))
    app = MonitorApp(History(take, lambda: next(seconds) * SECOND_NS), NEVER_S, "all daemons", "Nobody is here.")

    async def run() -> None:
        async with app.run_test(size=(100, 40)) as pilot:
            await scene(app, pilot)

    asyncio.run(run())
    return app.return_code


def busy() -> Overview:
    """A proxy that hangs, and a cache."""
    here = (process(100, state="stuck", heartbeat_age_s=8.0), process(5, role="cache"))
    return reading(0, page({(REQUESTS, "http", "hit", "2xx"): 9}), processes=here, segments=[segment()]).overview


def test_each_key_shows_its_page() -> None:
    async def scene(app: MonitorApp, pilot: Pilot[None]) -> None:
        assert "requests in all 9" in screen_text(app)
        assert "1 in trouble" in screen_text(app)
        assert "(pid 100) hangs: no heartbeat for 8 s" in screen_text(app)
        for shown in PAGES[::-1]:
            await pilot.press("question_mark" if shown.key == "?" else shown.key)
            await pilot.pause()
            assert f"gfmon  {shown.name} · all daemons" in screen_text(app)
        await pilot.press("q")

    assert show(busy, scene) == 0


def test_nobody_and_then_somebody() -> None:
    found = iter((reading(0).overview, busy(), reading(0).overview))

    async def scene(app: MonitorApp, pilot: Pilot[None]) -> None:
        assert "Nobody is here." in screen_text(app)
        app.look()
        await pilot.pause()
        assert "requests in all 9" in screen_text(app)
        app.look()
        await pilot.pause()
        assert "Nobody is here." in screen_text(app)
        assert "requests in all" not in screen_text(app)

    show(lambda: next(found), scene)


def test_memory_that_cannot_be_read_is_said_and_tried_again() -> None:
    state = {"error": OSError(2, "No such file or directory", "/dev/shm")}

    def take() -> Overview:
        if "error" in state:
            raise state["error"]
        return busy()

    async def scene(app: MonitorApp, pilot: Pilot[None]) -> None:
        assert "cannot read shared memory: [Errno 2]" in screen_text(app)
        del state["error"]
        app.look()
        await pilot.pause()
        assert "requests in all 9" in screen_text(app)
        assert "cannot read" not in screen_text(app)

    show(take, scene)


def tiles(app: App[None]) -> list[str]:
    """The lines of tiles on the screen, all of them of segments at rest."""
    return [line.strip() for line in screen_text(app).splitlines() if set(line.strip()) == {"○"}]


async def drawn(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait until the screen is so."""
    give_up = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < give_up
        await pilot.pause()


def test_another_size() -> None:
    """Tiles fill the width, and what is wider than the window can be reached by its scroll bar."""
    many = [segment(number) for number in range(150)]

    async def scene(app: MonitorApp, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        for width in (60, 120):
            await pilot.resize_terminal(width, 30)
            await drawn(pilot, lambda width=width: len(tiles(app)[0]) == width - 8)
            assert sum(map(len, tiles(app))) == 150
        await pilot.resize_terminal(50, 30)
        await pilot.press("4")
        await pilot.pause()
        page_widget = app.query_one("#page")
        assert page_widget.max_scroll_x > 0
        await pilot.press("right")
        assert page_widget.scroll_target_x > 0

    show(lambda: reading(0, processes=(process(100),), segments=many).overview, scene)
