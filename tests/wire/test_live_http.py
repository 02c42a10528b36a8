"""The corpus of HTTP requests against running proxies: what is refused ends the connection, nothing behind it counts.

An origin notes every request that reaches it: what hides in a body, or behind a bad request, must never come there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.client import receive_to_end
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.http_wire import HttpClient
from tests.wire.http_corpus import LARGE, READ, REFUSED, HttpCase
from webproxy.serving.new_connection import Spoken, spoken_by
from workloads.origin_stub import OriginStub, Request, Route

INVALID = b"GETFILE INVALID\r\n\r\n"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonYard]:
    with DaemonYard(tmp_path_factory.mktemp("http-wire")) as made:
        yield made


@pytest.fixture(scope="module", params=["http", "getfile,http"])
def daemon_of(request: pytest.FixtureRequest, yard: DaemonYard) -> Iterator[tuple[str, DaemonProcess]]:
    """A proxy without cache and origin behind it has nothing to serve: it must refuse all the same."""
    env = {"WEBPROXY_REQUEST_TIMEOUT_S": "3600", "WEBPROXY_CACHE_TIMEOUT_S": "5", "WEBPROXY_KEEPALIVE_S": "3600"}
    if not yard.started:
        yard.start_cache("-t", "2")
    daemon = yard.start_proxy("-t", "3", "--protocols", request.param, env=env)
    threads = daemon.thread_count()
    yield request.param, daemon
    assert daemon.thread_count() == threads
    assert daemon.stop() == 0
    assert [event for event in daemon.events() if event["level"] in ("error", "critical")] == []


def pieces_of(data: bytes, step: int) -> list[bytes]:
    return [data[start : start + step] for start in range(0, len(data), step)]


@pytest.mark.parametrize("step", [1])
@pytest.mark.parametrize("case", [case for case in (*REFUSED, *LARGE) if case.refused], ids=lambda case: case.name)
def test_what_is_refused_is_told_so_and_the_connection_ends(
    daemon_of: tuple[str, DaemonProcess], case: HttpCase, step: int
) -> None:
    """Requests before it get their answers; behind the refusal nothing comes."""
    if step and len(case.data) > 8000:
        step *= 1000
    protocols, daemon = daemon_of
    with HttpClient(daemon.port) as client:
        with suppress(OSError):  # it may be told before it has said all
            client.send(*(pieces_of(case.data, step) if step else [case.data]))
        if protocols != "http" and spoken_by(case.data) is not Spoken.HTTP:
            with suppress(OSError):
                client.end()  # an incomplete line is waited for
            assert receive_to_end(client.socket) == INVALID
            return
        answers = [client.answer()]
        while answers[-1].status in (100, 404, 405, 501) and not answers[-1].closes:
            answers.append(client.answer())
        said = [answer.status for answer in answers if answer.status != 100]
        assert said[-1] == case.refused or has_bad_body(case), said
        assert len(said) <= len(case.requests) + 1
        assert answers[-1].closes
        assert client.rest() == b""


def has_bad_body(case: HttpCase) -> bool:
    """Its head is good: without an origin nobody wants the body, and the answer to the head ends the connection."""
    return case.name.startswith(("chunk-", "trailer", "too-many-trailers", "end-of-chunks", "extensions-", "body-"))


# -- with an origin behind ---------------------------------------------------------------------------------------------
NEVER_SENT_ON = {"CONNECT"}


def echo(asked: Request) -> Route:
    return Route(methods={asked.method}, echo=True, headers={"Cache-Control": "no-store"})


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    paths = ("/a", "/b", "/a?b", "/%C3%BC", "//evil/a", "/smuggled", "/")
    with OriginStub({path: Route(choose=echo, methods={"GET", "POST", "X-FROB"}) for path in paths}) as stub:
        yield stub


@pytest.mark.parametrize("step", [0, 5])
def test_what_is_read_comes_to_the_origin_as_it_was_meant(
    start_proxy: Callable[..., DaemonProcess], origin: OriginStub, step: int
) -> None:
    """Method and body of each request, in order; and each has one answer."""
    proxy = start_proxy("--no-cache", "-s", origin.url, "-t", "2")
    for case in READ:
        before = len(origin.requests)
        with HttpClient(proxy.port) as client:
            client.send(*(pieces_of(case.data, step) if step else [case.data]))
            statuses = [client.answer(method).status for method, _, _ in case.requests]
        meant = [
            (method.decode(), body)
            for (method, target, body), status in zip(case.requests, statuses, strict=True)
            if status == 200 and target != b"*"  # that is answered by the proxy
        ]
        came = [(asked.method, asked.body) for asked in origin.requests[before:]]
        assert came[: len(meant)] == meant, case.name
        assert all(method == "POST" for method, _ in came[len(meant) :]), "but for bodies that broke off"
        odd = [case.requests[index] for index, status in enumerate(statuses) if status != 200]
        assert all(method.decode() in NEVER_SENT_ON or not target.startswith(b"/") for method, target, _ in odd), case


@pytest.mark.parametrize("step", [0, 5])
def test_nothing_that_hides_behind_a_refused_request_comes_to_the_origin(
    start_proxy: Callable[..., DaemonProcess], origin: OriginStub, step: int
) -> None:
    proxy = start_proxy("--no-cache", "-s", origin.url, "-t", "2", "--protocols", "http")
    for case in REFUSED:
        before = len(origin.requests)
        with HttpClient(proxy.port) as client:
            with suppress(OSError):
                client.send(*(pieces_of(case.data, step) if step else [case.data]))
            statuses = []
            while not statuses or statuses[-1] == 200:
                statuses.append(client.answer().status)
            assert (statuses[-1], len(statuses)) == (case.refused, len(case.requests) + 1), case.name
            assert client.rest() == b"", case.name
        whole = [(asked.method, asked.path) for asked in origin.requests[before:] if asked.method != "POST"]
        assert whole == [(method.decode(), target.decode()) for method, target, _ in case.requests if method == b"GET"]
    assert origin.count("/smuggled") == 0
