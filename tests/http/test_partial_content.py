"""RFC 9111 sections 3.3 and 3.4 with whole daemons: a broken body is resumed, or its prefix is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.http.client import HttpClient
from tests.http.site import Site, http_date
from tests.support.client import ask
from tests.support.waiting import wait_until
from webproxy.getfile import Status
from workloads.origin_stub import Framing, Route

PROXY_ENV = {"WEBPROXY_ORIGIN_TRIES": "3", "WEBPROXY_ORIGIN_STALL_S": "2"}
BODY = bytes(range(256)) * 4000
SIZE = len(BODY)
CUT = 300_001
OTHER = BODY[::-1]
MODIFIED = http_date(-10_000)
FRESH = {"Cache-Control": "max-age=600", "ETag": '"1"', "Last-Modified": MODIFIED}
GOOD = Route(body=BODY, headers=FRESH)
AT_ONCE = "truncated at once"
BREAKS = {
    "truncated": replace(GOOD, truncate_at=CUT),
    AT_ONCE: replace(GOOD, truncate_at=0),
    "truncated at the last byte": replace(GOOD, truncate_at=SIZE - 1),
    "reset": replace(GOOD, reset_at=CUT),
}


# -- in one fetch ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "protocol"),
    # getfile promises nothing before the first byte: it asks for all of it once more then
    [(how, protocol) for how in BREAKS for protocol in ("http", "getfile") if (how, protocol) != (AT_ONCE, "getfile")],
)
def test_a_body_that_breaks_off_goes_on(site: Site, how: str, protocol: str) -> None:
    path = site.put(BREAKS[how], GOOD)
    if protocol == "http":
        reply = site.get(path)
        assert (reply.status, reply.whole, reply.body == BODY) == (200, True, True)
    else:
        answer = ask(site.port, path)
        assert (answer.status, answer.body == BODY) == (Status.OK, True)
    assert site.count(path) == 2
    first = int(site.last(path).headers["range"].removeprefix("bytes=").removesuffix("-"))
    cut = next(at for at in (BREAKS[how].truncate_at, BREAKS[how].reset_at) if at is not None)
    assert first == cut or (how == "reset" and first < cut), "a reset may overtake bytes"
    assert site.last(path).headers["if-range"] == '"1"'
    site.settle(path)
    assert site.stored(path).body == BODY
    assert site.count(path) == 2


def test_a_silent_origin_is_not_asked_once_more_for_the_same_request(site: Site) -> None:
    """It would only have more to do. What has come is kept, and the next request asks for the rest."""
    path = site.put(replace(GOOD, stall_at=CUT, stall_s=60.0), GOOD)
    reply = site.get(path)
    assert (reply.status, reply.whole, reply.body) == (200, False, BODY[:CUT])
    assert site.count(path) == 1
    wait_until(lambda: site.held_of(path) == CUT)
    assert site.get(path).body == BODY
    assert site.last(path).headers["range"] == f"bytes={CUT}-"


def test_it_goes_on_as_often_as_there_are_tries(site: Site) -> None:
    path = site.put(replace(GOOD, truncate_at=CUT), replace(GOOD, reset_at=CUT), GOOD)
    assert site.get(path).body == BODY
    assert site.count(path) == 3


def test_an_error_in_between_is_tried_again(site: Site) -> None:
    path = site.put(replace(GOOD, truncate_at=CUT), Route(status=503, body=b"busy"), GOOD)
    assert site.get(path).body == BODY
    assert site.count(path) == 3


def test_a_strong_date_is_a_validator_where_there_is_no_etag(site: Site) -> None:
    good = replace(GOOD, headers={"Cache-Control": "max-age=600", "Last-Modified": MODIFIED, "Date": http_date()})
    path = site.put(replace(good, truncate_at=CUT), good)
    assert site.get(path).body == BODY
    assert site.last(path).headers["if-range"] == MODIFIED


def test_a_validation_whose_new_body_breaks_off(site: Site) -> None:
    """The request for the rest is about the new one: without the condition of the request before it."""
    stale = Route(body=b"old", headers={**FRESH, "ETag": '"0"', "Age": "1000"})
    path = site.fill(stale, replace(GOOD, truncate_at=CUT), GOOD)
    assert site.get(path).body == BODY
    assert site.last(path).headers.keys() & {"if-none-match", "if-modified-since"} == set()


UNFIT = {
    "another representation": Route(body=OTHER, headers={**FRESH, "ETag": '"2"'}),
    "no ranges": replace(GOOD, ranges=False),
    "another length": Route(body=BODY + b"x", headers=FRESH),
    "gone": Route(status=404),
}


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("protocol", ["http", "getfile"])
def test_what_is_not_the_rest_is_not_taken_for_it(site: Site, what: str, protocol: str) -> None:
    path = site.put(replace(GOOD, truncate_at=CUT), UNFIT[what])
    if protocol == "http":
        reply = site.get(path)
        assert (reply.status, reply.whole, BODY.startswith(reply.body)) == (200, False, True)
    else:
        answer = ask(site.port, path)
        assert BODY.startswith(answer.body)
        assert len(answer.body) < SIZE
    assert site.count(path) == 2
    assert not site.holds(path)


HEADERS_206 = {**FRESH, "Content-Range": f"bytes {CUT}-{SIZE - 1}/{SIZE}"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"ETag": '"2"'}, BODY[CUT:], id="another validator"),
        pytest.param({"ETag": 'W/"1"'}, BODY[CUT:], id="a weak one"),
        pytest.param({"Content-Range": f"bytes {CUT - 1}-{SIZE - 1}/{SIZE}"}, BODY[CUT - 1 :], id="too early"),
        pytest.param({"Content-Range": f"bytes {CUT}-{SIZE - 2}/{SIZE}"}, BODY[CUT:-1], id="not to the end"),
        pytest.param({"Content-Range": f"bytes {CUT}-{SIZE - 1}/{SIZE + 1}"}, BODY[CUT:], id="of another length"),
        pytest.param({"Content-Range": "bytes 0-0/*"}, BODY[CUT:], id="of an unknown length"),
        pytest.param({"Content-Encoding": "gzip"}, BODY[CUT:], id="in another coding"),
        pytest.param({}, BODY[CUT:-1], id="too short by its own length"),
    ],
)
def test_a_206_that_does_not_fit_is_not_taken(site: Site, headers: dict[str, str], body: bytes) -> None:
    rest = Route(status=206, body=body, headers={**HEADERS_206, **headers})
    path = site.put(replace(GOOD, truncate_at=CUT), rest)
    reply = site.get(path)
    assert (reply.status, reply.whole, BODY.startswith(reply.body)) == (200, False, True)
    assert not site.holds(path)


@pytest.mark.parametrize("excess", [b"", b"x"], ids=["exact", "too long"])
def test_a_rest_in_chunks(site: Site, excess: bytes) -> None:
    rest = Route(status=206, body=BODY[CUT:] + excess, headers=HEADERS_206, framing=Framing.CHUNKED)
    path = site.put(replace(GOOD, truncate_at=CUT), rest)
    reply = site.get(path)
    assert reply.whole is not bool(excess)
    assert BODY.startswith(reply.body)
    assert site.holds(path) is False or site.stored(path).body == BODY


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Cache-Control": "max-age=600"}, id="no validator"),
        pytest.param({**FRESH, "ETag": 'W/"1"'}, id="a weak one"),
        pytest.param({"Cache-Control": "max-age=600", "Last-Modified": http_date(60)}, id="a weak date"),
        pytest.param({**FRESH, "Accept-Ranges": "none"}, id="ranges refused"),
    ],
)
def test_what_cannot_be_told_to_be_the_same_does_not_go_on(site: Site, headers: dict[str, str]) -> None:
    path = site.put(Route(body=BODY, headers=headers, truncate_at=CUT), Route(body=BODY, headers=headers))
    reply = site.get(path)
    assert (reply.whole, BODY.startswith(reply.body)) == (False, True)
    assert site.count(path) == 1


def test_a_body_of_unknown_length_does_not_go_on(site: Site) -> None:
    path = site.put(replace(GOOD, framing=Framing.CHUNKED, truncate_at=CUT), GOOD)
    assert not site.get(path).whole
    assert site.count(path) == 1


def test_those_who_share_a_fetch_share_its_rest(site: Site) -> None:
    path = site.put(replace(GOOD, truncate_at=CUT), GOOD)
    assert {reply.body for reply in site.get_all([(path,)] * 12)} == {BODY}
    assert site.count(path) == 2


def test_the_rest_updates_what_is_stored_of_the_head(site: Site) -> None:
    path = site.put(
        replace(GOOD, headers={**FRESH, "Number": "1", "Cache-Control": "max-age=100"}, truncate_at=CUT),
        replace(GOOD, headers={**FRESH, "Number": "2"}),
    )
    assert site.get(path).get("number") == "1"
    assert site.stored(path).body == BODY

    def updated() -> bool:
        reply = site.get(path)
        return reply.is_hit and reply.get("number") == "2" and reply.get("content-range") is None

    wait_until(updated, what="the newer head")
    assert site.get(path).get("cache-control") == "max-age=600"


@pytest.mark.parametrize("protocol", ["http", "getfile"])
def test_a_rest_that_may_not_be_stored_keeps_all_of_it_out(site: Site, protocol: str) -> None:
    forbidden = replace(GOOD, headers={**FRESH, "Cache-Control": "no-store"})
    path = site.put(replace(GOOD, truncate_at=CUT), forbidden)
    assert (site.get(path).body if protocol == "http" else ask(site.port, path).body) == BODY
    assert site.get(path).body == BODY
    assert site.count(path) > 2
    assert not site.holds(path)


def test_a_client_that_wants_a_part_gets_it_from_the_rest(site: Site) -> None:
    path = site.put(replace(GOOD, truncate_at=CUT), GOOD)
    reply = site.get(path, f"Range: bytes={CUT + 1000}-{CUT + 1999}")
    assert (reply.status, reply.body) == (206, BODY[CUT + 1000 : CUT + 2000])
    with HttpClient(site.port) as client:
        assert client.ask(path).body == BODY
    assert site.count(path) == 2


def test_a_206_that_nobody_asked_for_is_passed_on(site: Site) -> None:
    path = site.put(Route(status=206, body=BODY[CUT:], headers=HEADERS_206))
    for _ in range(2):
        reply = site.get(path)
        assert (reply.status, reply.body, reply.get("content-range")) == (206, BODY[CUT:], HEADERS_206["Content-Range"])
        assert "range" not in site.last(path).headers
    assert not site.holds(path)
    assert site.held_of(path) is None
