"""Hop over TLS: whom it trusts, and HTTP/2 where the origin speaks it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, needs_openssl
from tests.support.h2server import H2Server
from tests.support.sinks import CollectingSink, WaitingClient, fetch, origin_client, origin_limits, running_driver
from tests.support.waiting import wait_until
from webproxy.errors import OriginUnreachable
from webproxy.http.fields import Fields
from webproxy.origin.request import OriginRequest, getfile_request
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.shares import ShareSettings
from workloads.origin_stub import OriginStub, Route

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.server_context()


@pytest.fixture
def origin(tls: ssl.SSLContext) -> Iterator[OriginStub]:
    with OriginStub({"/x": Route(body=b"secret")}, tls=tls) as made:
        yield made


def ask(client: WaitingClient, url: str, *, body: BytesBody | None = None) -> tuple[OriginResponse, CollectingSink]:
    sink = CollectingSink()
    request = OriginRequest(url=url, method=b"GET" if body is None else b"POST", body=body)
    return client.fetch(request, sink), sink


def fetched(url: str, **settings: Any) -> bytes:
    """The body, asked for with these limits."""
    with origin_client(**settings) as client:
        return ask(client, url)[1].body


class BytesBody:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = None

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


def test_an_authority_of_the_operators(authority: Authority, origin: OriginStub) -> None:
    assert fetched(f"{origin.url}/x", ca_file=authority.ca_file) == b"secret"


def test_an_unknown_authority_is_refused_and_not_tried_again(origin: OriginStub) -> None:
    with pytest.raises(OriginUnreachable) as caught:
        fetched(f"{origin.url}/x")
    assert not caught.value.retryable
    assert origin.requests == []


def test_without_verification_anybody_will_do(origin: OriginStub) -> None:
    assert fetched(f"{origin.url}/x", tls_verify=False) == b"secret"


def test_the_limits_of_one_fetch_do_not_stay(origin: OriginStub) -> None:
    with origin_client(tls_verify=False) as client:
        assert ask(client, f"{origin.url}/x")[1].body == b"secret"
        with pytest.raises(OriginUnreachable):
            client.fetch(OriginRequest(url=f"{origin.url}/x"), CollectingSink(), origin_limits())


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with OriginStub({"/x": Route()}, tls=authority.server_context("DNS:other.example")) as origin:
        with pytest.raises(OriginUnreachable):
            fetched(f"{origin.url}/x", ca_file=authority.ca_file)
        assert origin.requests == []


def test_a_file_of_authorities_that_is_not_there(origin: OriginStub, tmp_path: Path) -> None:
    with pytest.raises(OriginUnreachable) as caught:
        fetched(f"{origin.url}/x", ca_file=str(tmp_path / "none"))
    assert not caught.value.retryable


def test_a_host_that_a_redirect_names_is_verified_whatever_the_operator_said(
    origin: OriginStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webproxy.origin.hop.may_connect", lambda address, *, named_by_operator: True)
    with OriginStub({"/x": Route(redirect_to=f"{origin.url}/x")}) as first:
        with pytest.raises(OriginUnreachable):
            fetch(getfile_request(f"{first.url}/x"), CollectingSink(), tls_verify=False)
        assert origin.requests == []


def test_idle_connections_count_over_tls_too(tls: ssl.SSLContext) -> None:
    """Connections with other settings are of another kind: none can be used for the other, and one makes way."""
    route = Route(methods=("GET", "POST"))
    with (
        OriginStub({"/x": route}, tls=tls) as origin,
        running_driver(ShareSettings(origin_connections_max=1)) as driver,
    ):
        client = WaitingClient(driver, origin_limits(tls_verify=False))
        for _ in range(3):
            assert ask(client, f"{origin.url}/x")[0].status == 200
            assert ask(client, f"{origin.url}/x", body=BytesBody(b"u"))[0].status == 200
        with pytest.raises(OriginUnreachable):
            client.fetch(OriginRequest(url=f"{origin.url}/x"), CollectingSink(), origin_limits())
        assert ask(client, f"{origin.url}/x")[0].status == 200
        wait_until(lambda: origin.connection_count == 1, what="one connection")


def test_http_2_where_the_origin_speaks_it(authority: Authority) -> None:
    head = [(b":status", b"200"), (b"content-length", b"3"), (b"x-a", b"1"), (b"x-a", b"2")]
    server = H2Server(authority.server_context(protocols=("h2", "http/1.1")), head, b"abc", [(b"digest", b"z")])
    with server, origin_client(ca_file=authority.ca_file) as client:
        for _ in range(2):
            response, sink = ask(client, f"{server.url}/x")
            assert (response.status, response.http_version, response.length) == (200, b"2", 3)
            assert response.fields.get_all(b"x-a") == [b"1", b"2"]
            assert (sink.body, response.trailers) == (b"abc", Fields(((b"digest", b"z"),)))
        response, _ = ask(client, f"{server.url}/x", body=BytesBody(b"u" * 20_000))
        assert response.status == 200
    assert server.protocols == ["h2", "h2"]
    assert len(server.streams) == 3
    assert bytes(server.received) == b"u" * 20_000
