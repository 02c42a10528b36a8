"""One request in the logs of both daemons: all its lines have its id, whatever becomes of it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shmchannel.daemonkit.logs import LogForm, configure
from tests.http.client import fetch
from tests.support.client import ask
from tests.support.contents import write_files
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from tests.support.whole_pair import whole_pair
from webproxy.fetch.table import FetchTable
from webproxy.getfile import RemoteProtocolError
from workloads.origin_stub import OriginStub, Route

DEBUG = ("--log-level", "debug")
FRESH = {"Cache-Control": "max-age=600"}
FOUND = ["command sent", "command answered", "looked up", "request ends"]
MISSED = ["command sent", "command answered", "looked up", "fetch begins"]
ASKED = ["origin asked", "origin answered"]

Ask = Callable[[int, str], object]
ASKS = pytest.mark.parametrize("asked", [fetch, ask], ids=["http", "getfile"])


def story(daemon: DaemonProcess, request: str) -> list[str]:
    """The events of one request."""
    return [event["event"] for event in daemon.events() if event.get("request") == request]


def asked_for(proxy: DaemonProcess, path: str, asked: Ask) -> str:
    """The id of a request that is asked now."""
    count = len(proxy.events("request ends"))
    asked(proxy.port, path)
    return str(proxy.wait_event("request ends", count=count + 1)["request"])


def wait_story(daemon: DaemonProcess, request: str, wanted: list[str]) -> None:
    """Wait until these are the events of the request, those that run beside each other in any order."""
    wait_until(lambda: sorted(story(daemon, request)) == sorted(wanted), what=f"{wanted} of {request}")


@pytest.fixture
def pair(yard: DaemonYard, origin: OriginStub) -> tuple[DaemonProcess, DaemonProcess]:
    cache = yard.start_cache(*DEBUG)
    return yard.start_proxy(*DEBUG, "-s", origin.url), cache


@ASKS
def test_a_miss_and_a_hot_hit(pair: tuple[DaemonProcess, DaemonProcess], origin: OriginStub, asked: Ask) -> None:
    proxy, cache = pair
    origin.add("/x", Route(body=b"x" * 500, headers=FRESH))
    missed = asked_for(proxy, "/x", asked)
    wait_story(proxy, missed, ["request begins", *MISSED, *ASKED, "command sent", "fetch ends", "request ends"])
    wait_story(cache, missed, ["object missing", "command served", "object stored", "command served"])
    assert proxy.wait_event("fetch ends")["stored"] is True

    def hot() -> str | None:
        request = asked_for(proxy, "/x", asked)
        return request if "command sent" not in story(proxy, request) else None

    request = wait_until(hot, what="a hit of the hot table")
    assert story(proxy, request) == ["request begins", "looked up", "request ends"]
    (found,) = [event for event in proxy.events("looked up") if event["request"] == request]
    assert (found["decision"], found["place"]) == ("HIT", "hot table")
    assert story(cache, request) == []
    assert missed != request


@ASKS
def test_a_hit_by_command(yard: DaemonYard, origin: OriginStub, asked: Ask) -> None:
    """Without a hot table."""
    cache = yard.start_cache(*DEBUG, "--hot-table-bytes", "0")
    proxy = yard.start_proxy(*DEBUG, "-s", origin.url)
    origin.add("/x", Route(body=b"x" * 500, headers=FRESH))
    missed = asked_for(proxy, "/x", asked)
    assert proxy.wait_event("fetch ends")["stored"] is True
    cold = asked_for(proxy, "/x", asked)
    assert story(proxy, cold) == ["request begins", *FOUND]
    wait_until(lambda: story(cache, cold)[-1:] == ["command served"], what="the cache's line")
    assert story(cache, cold)[0] == "object found"
    assert missed != cold


@ASKS
def test_a_large_hit(yard: DaemonYard, tmp_path: Path, asked: Ask) -> None:
    write_files(tmp_path / "files", {"large": 3_000_000})
    cache = yard.start_cache(*DEBUG, content=tmp_path / "files")
    proxy = yard.start_proxy(*DEBUG)
    request = asked_for(proxy, "/large", asked)
    assert [event for event in story(proxy, request) if not event.startswith("command ")] == [
        "request begins",
        "looked up",
        "request ends",
    ]
    sent = story(proxy, request).count("command sent")
    assert sent >= 1
    wait_until(lambda: story(cache, request).count("command served") == sent, what="the cache's lines")


@pytest.mark.parametrize(("asked", "status"), [(fetch, 502), (ask, 500)], ids=["http", "getfile"])
def test_an_origin_that_cannot_be_reached(yard: DaemonYard, asked: Ask, status: int) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        cache = yard.start_cache(*DEBUG)
        proxy = yard.start_proxy(*DEBUG, "-s", url, env={"WEBPROXY_ORIGIN_TRIES": "2"})
        request = asked_for(proxy, "/x", asked)
    given_up = ["origin asked", "origin given up"]
    failed = ["fetch failed", "request failed", "request ends"]
    wait_story(proxy, request, ["request begins", *MISSED, *given_up, "trying again", *given_up, *failed])
    wait_story(cache, request, ["object missing", "command served"])
    assert proxy.wait_event("request ends")["status"] == status


def test_a_request_that_is_passed_through(pair: tuple[DaemonProcess, DaemonProcess], origin: OriginStub) -> None:
    proxy, cache = pair
    origin.add("/x", Route(body=b"x", headers=FRESH))

    def post(port: int, path: str) -> None:
        command = ["curl", "-sS", "-o", "/dev/null", "-d", "body", f"http://127.0.0.1:{port}{path}"]
        subprocess.run(command, check=True, timeout=WATCHDOG_S)

    request = asked_for(proxy, "/x", post)
    passed = [event for event in story(proxy, request) if event != "command sent"]  # what it removes from the cache
    assert passed == ["request begins", "passed through", *ASKED, "request ends"]
    removed = story(cache, request)
    assert removed == [] or set(removed) == {"objects removed", "command served"}


@ASKS
def test_a_fetch_that_is_shared_names_who_began_it(
    pair: tuple[DaemonProcess, DaemonProcess], origin: OriginStub, asked: Ask
) -> None:
    proxy, _ = pair
    route = Route(body=b"x" * 50_000, headers=FRESH, hold=threading.Event(), hold_at=20_000)
    origin.add("/x", route)
    with ThreadPoolExecutor(2) as crew:
        futures = [crew.submit(asked, proxy.port, "/x")]
        assert route.reached.wait(WATCHDOG_S)
        first = str(proxy.wait_event("fetch begins")["request"])
        futures.append(crew.submit(asked, proxy.port, "/x"))
        joined = proxy.wait_event("fetch joined")
        assert route.hold is not None
        route.hold.set()
        for future in futures:
            future.result(WATCHDOG_S)
    assert joined["begun_by"] == first
    assert joined["request"] != first
    wait_story(proxy, str(joined["request"]), ["request begins", *FOUND, "fetch joined"])


def test_a_follower_of_another_process_is_named_there(yard: DaemonYard, origin: OriginStub) -> None:
    route = Route(body=b"x" * 50_000, headers=FRESH, hold=threading.Event(), hold_at=20_000)
    origin.add("/x", route)
    yard.start_cache(*DEBUG)
    holder, other = (yard.start_proxy(*DEBUG, "-s", origin.url) for _ in range(2))
    with ThreadPoolExecutor(2) as crew:
        futures = [crew.submit(fetch, holder.port, "/x")]
        assert route.reached.wait(WATCHDOG_S)
        first = str(holder.wait_event("fetch begins")["request"])
        futures.append(crew.submit(fetch, other.port, "/x"))
        joined = holder.wait_event("fetch joined")
        assert route.hold is not None
        route.hold.set()
        for future in futures:
            future.result(WATCHDOG_S)
    follower = str(other.wait_event("fetch begins")["request"])
    assert (joined["request"], joined["begun_by"]) == (follower, first)
    wait_story(holder, follower, ["follower asks", "fetch joined", "request ends"])


def test_a_name_from_the_client(yard: DaemonYard, tmp_path: Path) -> None:
    """The cache knows the end of a long one."""
    write_files(tmp_path / "files", {"small": 500})
    cache = yard.start_cache(*DEBUG, content=tmp_path / "files")
    proxy = yard.start_proxy(*DEBUG, env={"WEBPROXY_REQUEST_ID_FROM_CLIENT": "true"})
    name = "550e8400-e29b-41d4-a716-446655440000"
    fetch(proxy.port, "/small", f"X-Request-Id: {name}")
    assert {event["request"] for event in proxy.events("command sent")} == {name}
    assert cache.wait_event("command served")["request"] == name[-16:]


@ASKS
def test_what_is_wrong_in_the_cache_has_the_request(
    yard: DaemonYard, origin: OriginStub, tmp_path: Path, asked: Ask
) -> None:
    """Also at the level that it has by default."""
    origin.add("/x", Route(body=b"x" * 500, headers=FRESH))
    store = ("--store", str(tmp_path / "store"))
    cache, proxy = yard.start_cache(*store, *DEBUG), yard.start_proxy("-s", origin.url)
    asked(proxy.port, "/x")
    cache.wait_event("object stored")
    assert (proxy.stop(), cache.stop()) == (0, 0)
    cache, proxy = yard.start_cache(*store), yard.start_proxy(*DEBUG)
    for path in (tmp_path / "store" / "objects").glob("*/*"):
        path.unlink()
    request = asked_for(proxy, "/x", asked)
    assert cache.wait_event("stored object lost")["request"] == request


@ASKS
def test_a_response_that_is_not_stored_has_the_request(yard: DaemonYard, origin: OriginStub, asked: Ask) -> None:
    """Which the thread of the origins finds, when libcurl calls it with the head."""
    origin.add("/x", Route(body=bytes(700_001), headers=FRESH))
    yard.start_cache("--store-bytes", "256k")
    proxy = yard.start_proxy(*DEBUG, "-s", origin.url)
    request = asked_for(proxy, "/x", asked)
    assert proxy.wait_event("object not stored")["request"] == request


@ASKS
def test_a_request_that_breaks_is_named(
    asked: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A defect of ours: its traceback says in which request it was, or the line does."""
    handler = configure("info", prog="us", form=LogForm.JSON)
    try:
        with whole_pair() as pair:
            monkeypatch.setattr(FetchTable, "open", _broken)
            with contextlib.suppress(OSError, AssertionError, RemoteProtocolError):  # an answer is not to be expected
                asked(pair.port, "/x")
            pair.settle()
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(logging.WARNING)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (failed,) = [event for event in events if event["event"] == "job failed"]
    named = failed.get("request") or failed["exception"].splitlines()[-1]
    assert re.fullmatch(r"(request=)?[0-9a-f]{8}-1", named)


def _broken(*_: object, **_named: object) -> None:
    raise RuntimeError("broken")
