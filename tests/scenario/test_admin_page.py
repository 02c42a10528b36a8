"""The page of the admin server in a browser, before a pair under load: it is shown, and its charts move."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.http.client import fetch, free_port
from tests.support.browser import Browser, installed_browser
from tests.support.daemons import DaemonYard
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

LINES = "[...document.querySelectorAll('path.line')].map(path => path.getAttribute('d'))"
STATE = "document.getElementById('state')?.textContent"
TEXTS = "Object.fromEntries([...document.querySelectorAll('main section')].map(part => [part.id, part.innerText]))"


@contextmanager
def load(port: int, paths: list[str]) -> Iterator[None]:
    """One client that asks for one path after the other, until the end of the block."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            for path in paths:
                fetch(port, path)
            over.wait(0.01)

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield
    finally:
        over.set()
        client.join()


def look_at_a_pair_that_serves(browser: Browser, url: str) -> None:
    """Open the page, and wait until its charts have moved and show the load."""
    browser.open(url)
    wait_until(lambda: browser.evaluate(STATE) == "serving")
    wait_until(lambda: browser.evaluate(LINES))
    wait_until(
        lambda: browser.evaluate("points.at(-1).ratio") == pytest.approx(0.75, abs=0.05), what="hits, three of four"
    )
    wait_until(lambda: browser.evaluate("points.at(-1).cache > 0 && points.at(-1).client > 0"))
    for _ in range(3):
        before = browser.evaluate(LINES)
        wait_until(lambda before=before: browser.evaluate(LINES) != before, what="charts that move")  # type: ignore[misc]


@pytest.mark.slow
def test_the_page_shows_a_pair_under_load(yard: DaemonYard, origin: OriginStub, tmp_path: Path) -> None:
    installed_browser()
    origin.add("/x", Route(body=b"x" * 5000, headers={"Cache-Control": "max-age=600"}))
    origin.add("/y", Route(body=b"y" * 5000, headers={"Cache-Control": "no-store"}))
    port = free_port()
    yard.start_cache()
    proxy = yard.start_proxy("--workers", "2", "-s", origin.url, "--admin", f"127.0.0.1:{port}")
    with Browser(tmp_path) as browser:
        browser.look(width=1180)
        with load(proxy.port, ["/x", "/x", "/x", "/y", "/nowhere"]):
            look_at_a_pair_that_serves(browser, f"http://127.0.0.1:{port}/")
        texts = browser.evaluate(TEXTS)
        assert all(texts.values()), f"parts without text: {texts}"
        assert origin.url.rstrip("/") in texts["origins"]
        assert {"/x", "/y"} <= set(texts["missed"].split())
        assert yard.queue in texts["caches"]
        assert {"hot", "miss"} <= set(texts["outcomes"].split())
        assert browser.evaluate("document.querySelectorAll('.tile').length") == 16
        labels = browser.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.getAttribute('aria-label'))")
        assert [label.split(":")[0] for label in labels] == [
            "Hit ratio, without errors",
            "Latency to the last byte",
            "Requests per second",
            "Bytes per second to clients",
        ]
        wait_until(
            lambda: browser.evaluate("points.at(-1).cache === 0 && points.at(-1).client === 0"), what="the load's end"
        )
        browser.look(width=360, dark=True)
        assert browser.evaluate("document.documentElement.scrollWidth") == 360
        assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(228, 233, 240)", "dark mode"
        assert browser.errors == []
        assert proxy.stop() == 0
        wait_until(lambda: browser.evaluate(STATE) == "no answer from the admin server")


def test_a_script_that_is_not_of_the_page_does_not_run(yard: DaemonYard, tmp_path: Path) -> None:
    """The policy is in force: what somebody could smuggle in is reported, and not executed."""
    installed_browser()
    port = free_port()
    yard.start_proxy("--admin", f"127.0.0.1:{port}")
    with Browser(tmp_path) as browser:
        browser.open(f"http://127.0.0.1:{port}/")
        wait_until(lambda: browser.evaluate(STATE) == "serving")
        browser.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
        )
        wait_until(lambda: browser.evaluate("typeof window.ran") == "undefined" and browser.errors)
        assert "Content Security Policy" in browser.errors[0]
