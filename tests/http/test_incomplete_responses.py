"""RFC 9111 section 3.3 with whole daemons: the beginning of a body is kept, gives parts of itself, and is completed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.http.client import HttpClient, Reply, fetch
from tests.http.site import Site, http_date
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status
from workloads.origin_stub import Framing, OriginStub, Route

PROXY_ENV = {"WEBPROXY_CONTINUE_FETCH_AFTER_SHARE": "1.0"}
BODY = bytes(range(256)) * 16_000
SIZE = len(BODY)
CUT = 3_000_001
OTHER = BODY[::-1]
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"', "Content-Type": "text/plain"}
GOOD = Route(body=BODY, headers=FRESH)
CHANGED = Route(body=OTHER, headers={**FRESH, "ETag": '"2"'})
CUT_OFF = replace(GOOD, truncate_at=CUT)


def begun(site: Site, *then: Route, first: Route = CUT_OFF, held: int = CUT) -> str:
    """A path of which only the beginning is stored; what the origin says from now on."""
    path = site.put(first, *then)
    assert not site.get(path).whole
    wait_until(lambda: site.held_of(path) == held, what="the beginning in the cache")
    assert not site.holds(path)
    return path


def check_whole(reply: Reply, body: bytes = BODY) -> None:
    assert (reply.status, reply.whole, reply.body == body) == (200, True, True)


def wait_complete(site: Site, path: str, body: bytes = BODY) -> Reply:
    site.settle(path)
    reply = site.stored(path)
    check_whole(reply, body)
    wait_until(lambda: site.held_of(path) is None, what="the end of the part")
    return reply


# -- what is kept ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(CUT_OFF, id="truncated"),
        pytest.param(replace(GOOD, truncate_at=CUT, headers={**FRESH, "Vary": "Language"}), id="of a variant"),
    ],
)
def test_the_beginning_of_a_body_is_kept_and_completed(site: Site, first: Route) -> None:
    path = begun(site, replace(first, truncate_at=None), first=first)
    reply = site.get(path)
    check_whole(reply)
    assert (reply.get("content-type"), reply.get("content-range")) == ("text/plain", None)
    assert (reply.cache["fwd"], reply.cache["fwd-status"]) == ("partial", "206")
    asked = site.last(path).headers
    assert (asked["range"], asked["if-range"]) == (f"bytes={CUT}-", '"1"')
    wait_complete(site, path)
    assert site.count(path) == 2


def test_who_leaves_early_leaves_the_beginning(site: Site) -> None:
    """How much that is: what came until the proxy saw that the client has left, which shows when it is sent more."""
    path = site.put(replace(GOOD, drip_bytes_per_s=200_000), GOOD)
    with HttpClient(site.port) as client:
        client.send(path)
        client.head()
        assert client.rest(70_000) == BODY[:70_000]
    held = wait_until(lambda: site.held_of(path), what="the beginning in the cache")
    assert held is not None
    assert 70_000 <= held < SIZE
    check_whole(site.get(path))
    assert site.last(path).headers["range"] == f"bytes={held}-"
    wait_complete(site, path)


NOT_KEPT = {
    "without a validator": replace(CUT_OFF, headers={"Cache-Control": "max-age=600"}),
    "of a weak validator": replace(CUT_OFF, headers={**FRESH, "ETag": 'W/"1"'}),
    "not to be stored": replace(CUT_OFF, headers={**FRESH, "Cache-Control": "no-store"}),
    "private": replace(CUT_OFF, headers={**FRESH, "Cache-Control": "private, max-age=600"}),
    "of unknown length": replace(CUT_OFF, framing=Framing.CHUNKED),
    "not worth it": replace(CUT_OFF, truncate_at=65_535),
    "of another status": replace(CUT_OFF, status=404),
}


@pytest.mark.parametrize("why", NOT_KEPT)
def test_what_is_not_kept(site: Site, why: str) -> None:
    path = site.put(NOT_KEPT[why], GOOD)
    assert not site.get(path).whole
    check_whole(site.get(path))
    assert "range" not in site.last(path).headers
    assert site.held_of(path) is None


def test_a_longer_beginning_takes_the_place_of_a_shorter_one(site: Site) -> None:
    path = begun(site, replace(GOOD, truncate_at=500_000), GOOD)
    assert not site.get(path).whole
    wait_until(lambda: site.held_of(path) == CUT + 500_000, what="more of it")
    check_whole(site.get(path))
    assert site.last(path).headers["range"] == f"bytes={CUT + 500_000}-"


# -- never for the whole ---------------------------------------------------------------------------------------------
def test_a_beginning_is_never_served_as_all_of_it(site: Site) -> None:
    path = begun(site, Route(status=503, body=b"busy"))
    assert site.get(path).status == 503
    assert site.get(path, "Cache-Control: only-if-cached").status == 504
    assert site.get(path, method="HEAD").status == 503
    assert site.held_of(path) == CUT, "an error of the origin says nothing of it"
    assert ask(site.port, path).status is Status.ERROR
    assert site.get(path + "%00partial").status == 404


def test_getfile_fetches_all_of_it(site: Site) -> None:
    path = begun(site, GOOD)
    answer = ask(site.port, path)
    assert (answer.status, answer.body == BODY) == (Status.OK, True)
    assert "range" not in site.last(path).headers


# -- parts of it -----------------------------------------------------------------------------------------------------
def test_a_range_within_it_is_served_once_the_origin_has_confirmed_it(site: Site) -> None:
    path = begun(site, GOOD)
    first = site.get(path, "Range: bytes=1000-2999")
    assert (first.status, first.body, first.whole) == (206, BODY[1000:3000], True)
    assert first.get("content-range") == f"bytes 1000-2999/{SIZE}"
    assert first.cache["fwd-status"] == "304"
    assert site.last(path).headers["if-none-match"] == '"1"'
    for asked, wanted in [("0-0", BODY[:1]), (f"{CUT - 10}-{CUT - 1}", BODY[CUT - 10 : CUT])]:
        reply = site.get(path, f"Range: bytes={asked}")
        assert (reply.status, reply.body, reply.is_hit) == (206, wanted, True)
    several = site.get(path, "Range: bytes=0-9,100-109")
    assert several.is_hit
    assert (several.status, several.body.count(BODY[100:110])) == (206, 1)
    assert site.get(path, "Range: bytes=5-9", "Cache-Control: only-if-cached").is_hit
    assert site.count(path) == 2


def test_a_range_within_it_of_something_that_has_changed(site: Site) -> None:
    path = begun(site, CHANGED)
    reply = site.get(path, "Range: bytes=1000-2999")
    assert (reply.status, reply.body, reply.get("etag")) == (206, OTHER[1000:3000], '"2"')
    wait_complete(site, path, OTHER)


@pytest.mark.parametrize("asked", [f"{CUT - 5}-{CUT + 4}", f"{CUT}-", "-1000", f"0-9,{CUT}-{CUT + 9}"])
def test_a_range_beyond_it_completes_it(site: Site, asked: str) -> None:
    path = begun(site, GOOD)
    reply = site.get(path, f"Range: bytes={asked}")
    assert reply.whole
    if "," not in asked:
        first = SIZE - 1000 if asked == "-1000" else int(asked.partition("-")[0])
        end = int(asked.partition("-")[2]) + 1 if not asked.startswith("-") and not asked.endswith("-") else SIZE
        assert (reply.status, reply.body) == (206, BODY[first:end])
    assert site.last(path).headers["range"] == f"bytes={CUT}-"
    wait_complete(site, path)


@pytest.mark.parametrize(("condition", "status"), [('"1"', 206), ('"0"', 200)])
def test_if_range(site: Site, condition: str, status: int) -> None:
    path = begun(site, GOOD)
    reply = site.get(path, "Range: bytes=10-19", f"If-Range: {condition}")
    assert (reply.status, reply.body == (BODY[10:20] if status == 206 else BODY)) == (status, True)


def test_a_resumed_download(site: Site) -> None:
    """A client resumes its broken download: the origin sends each byte once."""
    path = begun(site, GOOD)
    reply = site.get(path, f"Range: bytes={CUT}-", 'If-Range: "1"')
    assert (reply.status, reply.body) == (206, BODY[CUT:])
    wait_complete(site, path)
    assert site.count(path) == 2


# -- completed, or not -----------------------------------------------------------------------------------------------
UNFIT = {
    "changed": CHANGED,
    "no ranges": replace(GOOD, ranges=False),
    "another one by 206": Route(status=206, body=OTHER[CUT:], headers={
        **FRESH, "ETag": '"2"', "Content-Range": f"bytes {CUT}-{SIZE - 1}/{SIZE}"}),
    "another range": Route(status=206, body=BODY[1:], headers={
        **FRESH, "Content-Range": f"bytes 1-{SIZE - 1}/{SIZE}"}),
    "shorter than that": Route(status=416, headers={"Content-Range": "bytes */10"}),
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_what_is_not_its_rest_replaces_it(site: Site, what: str) -> None:
    path = begun(site, UNFIT[what], CHANGED)
    reply = site.get(path)
    body = BODY if what == "no ranges" else OTHER
    check_whole(reply, body)
    wait_complete(site, path, body)


def test_the_newer_head_is_stored_with_the_whole(site: Site) -> None:
    path = begun(
        site,
        replace(GOOD, headers={**FRESH, "Number": "2", "Set-Cookie": "a=b"}),
        first=replace(CUT_OFF, headers={**FRESH, "Number": "1", "Cache-Control": "max-age=5"}),
    )
    reply = site.get(path)
    check_whole(reply)
    assert (reply.get("number"), reply.get("set-cookie")) == ("2", "a=b")
    reply = wait_complete(site, path)
    assert (reply.get("number"), reply.get("set-cookie")) == ("2", None)
    assert reply.get("cache-control") == "max-age=600"


def test_a_rest_that_may_not_be_stored(site: Site) -> None:
    forbidden = replace(GOOD, headers={**FRESH, "Cache-Control": "no-store"})
    path = begun(site, forbidden)
    check_whole(site.get(path))
    wait_until(lambda: site.held_of(path) is None, what="the end of the part")
    check_whole(site.get(path))
    assert "range" not in site.last(path).headers
    assert not site.holds(path)


def test_many_who_ask_share_one_completion(site: Site) -> None:
    path = begun(site, GOOD)
    for reply in site.get_all([(path,)] * 12):
        check_whole(reply)
    wait_complete(site, path)
    assert site.count(path) == 2


def test_parts_and_the_whole_at_the_same_time(site: Site) -> None:
    path = begun(site, GOOD)
    asked = [(path,), (path, "Range: bytes=10-19"), (path, f"Range: bytes={CUT + 10}-{CUT + 19}")] * 6
    wanted = [BODY, BODY[10:20], BODY[CUT + 10 : CUT + 20]] * 6
    assert [reply.body for reply in site.get_all(asked)] == wanted


def test_a_variant_that_the_request_does_not_select_is_not_completed(site: Site) -> None:
    first = replace(CUT_OFF, headers={**FRESH, "Vary": "Language"})
    path = begun(site, replace(CHANGED, headers={**FRESH, "ETag": '"2"', "Vary": "Language"}), first=first)
    check_whole(site.get(path, "Language: 2"), OTHER)
    assert "range" not in site.last(path).headers
    assert site.get(path, "Language: 3", "Range: bytes=0-9").body == OTHER[:10]


# -- purges ----------------------------------------------------------------------------------------------------------
def test_a_purge_removes_it(site: Site) -> None:
    path = begun(site, GOOD)
    assert site.get(path, method="PURGE").body.startswith(b"1 object")
    assert site.held_of(path) is None
    check_whole(site.get(path))
    assert "range" not in site.last(path).headers


def test_an_unsafe_method_removes_it(site: Site) -> None:
    path = begun(site, replace(GOOD, methods=("GET", "POST")))
    assert site.get(path, method="POST").status == 200
    assert site.held_of(path) is None


def test_a_soft_purge_has_it_validated(site: Site) -> None:
    path = begun(site, GOOD)
    for _ in range(2):
        assert site.get(path, "Range: bytes=0-9").status == 206
    assert site.count(path) == 2
    assert site.get(path, "X-Purge: soft", method="PURGE").status == 200
    reply = site.get(path, "Range: bytes=0-9")
    assert (reply.body, reply.cache["fwd-status"]) == (BODY[:10], "304")


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("before_the_head", [False, True], ids=["in the rest", "before the rest"])
def test_a_purge_while_it_is_completed(site: Site, soft: bool, before_the_head: bool) -> None:
    """The prefix stored before the purge does not come back in the whole, nor as valid after a soft purge."""
    gate = threading.Event()
    held = Route(body=BODY, headers=FRESH, hold=gate, hold_at=500_000, hold_head=before_the_head)
    path = begun(site, held, GOOD)
    with HttpClient(site.port) as client:
        client.send(path)
        assert held.reached.wait(WATCHDOG_S)
        assert site.get(path, *(["X-Purge: soft"] if soft else []), method="PURGE").status == 200
        gate.set()
        check_whole(client.receive())

    def asked_again() -> bool:  # a request during the end of the fetch would share its answer
        reply = site.get(path)
        check_whole(reply)
        since = [request for request in site.asked(path)[2:] if "range" not in request.headers]
        assert since or not reply.is_hit
        return bool(since)

    wait_until(asked_again, what="a request to the origin for all of it, after the purge")


def test_a_date_as_validator(site: Site) -> None:
    headers = {"Cache-Control": "max-age=600", "Last-Modified": http_date(-10_000), "Date": http_date()}
    path = begun(site, replace(GOOD, headers=headers), first=replace(CUT_OFF, headers=headers))
    check_whole(site.get(path))
    assert site.last(path).headers["if-range"] == headers["Last-Modified"]
    wait_complete(site, path)


# -- the cache comes and goes ----------------------------------------------------------------------------------------
ONE_TRY = {"WEBPROXY_ORIGIN_TRIES": "1"}


def test_a_beginning_outlives_a_restart_of_both(yard: DaemonYard, tmp_path: Path) -> None:
    where = ("--store", str(tmp_path / "store"))
    with OriginStub({"/x": [CUT_OFF, GOOD]}) as origin:
        cache, proxy = yard.start_cache(*where), yard.start_proxy("-s", origin.url, env=ONE_TRY)
        assert not fetch(proxy.port, "/x").whole
        proxy.wait_event("partial response stored")
        assert (proxy.stop(), cache.stop()) == (0, 0)
        yard.start_cache(*where)
        check_whole(fetch(yard.start_proxy("-s", origin.url, env=ONE_TRY).port, "/x"))
        assert origin.requests[-1].headers["range"] == f"bytes={CUT}-"


@pytest.mark.parametrize("before_the_head", [False, True], ids=["in the rest", "before the rest"])
def test_a_cache_that_is_killed_while_its_part_is_completed(yard: DaemonYard, before_the_head: bool) -> None:
    """The client gets every byte: the origin supplies those that the cache no longer can."""
    gate = threading.Event()
    held = Route(body=BODY, headers=FRESH, hold=gate, hold_at=500_000, hold_head=before_the_head)
    with OriginStub({"/x": [CUT_OFF, held, GOOD]}) as origin:
        cache, proxy = yard.start_cache(), yard.start_proxy("-s", origin.url, env=ONE_TRY)
        assert not fetch(proxy.port, "/x").whole
        proxy.wait_event("partial response stored")
        with HttpClient(proxy.port) as client:
            client.send("/x")
            assert held.reached.wait(WATCHDOG_S)
            assert origin.requests[-1].headers["range"] == f"bytes={CUT}-"
            cache.kill()
            gate.set()
            check_whole(client.receive())
        yard.start_cache()
        check_whole(fetch(proxy.port, "/x"))
