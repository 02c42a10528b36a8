"""OriginDriver and redirects: followed where harmless, refused where an origin could send us against others."""

from __future__ import annotations

import pytest

from tests.support.rawserver import RawServer
from tests.support.sinks import CollectingSink, fetch
from webproxy.errors import OriginError, OriginRefused
from webproxy.origin.request import getfile_request
from workloads.origin_stub import OriginStub, Route


def test_a_redirect_within_the_origin_is_followed_in_every_form() -> None:
    with OriginStub({"/end": Route(body=b"there")}) as origin:
        targets = {"/a": "/end", "/b": f"{origin.url}/end", "/c": "end", "/d": f"//127.0.0.1:{origin.port}/end"}
        for number, (path, target) in enumerate(targets.items()):
            status = (301, 302, 307, 308)[number]
            origin.add(path, Route(redirect_to=target, status=status, body=b"look there"))
            sink = CollectingSink()
            assert fetch(getfile_request(origin.url + path), sink).status == 200
            assert sink.body == b"there"
        assert origin.count("/end") == len(targets)


def test_so_many_redirects_and_no_more() -> None:
    routes = {f"/{n}": Route(redirect_to=f"/{n + 1}") for n in range(4)} | {"/4": Route(body=b"end")}
    with OriginStub(routes) as origin:
        sink = CollectingSink()
        fetch(getfile_request(f"{origin.url}/0"), sink, redirects=4)
        assert sink.body == b"end"
        with pytest.raises(OriginRefused):
            fetch(getfile_request(f"{origin.url}/0"), CollectingSink(), redirects=3)


def test_a_loop_ends_at_the_limit() -> None:
    with OriginStub({"/loop": Route(redirect_to="/loop")}) as origin:
        with pytest.raises(OriginRefused):
            fetch(getfile_request(f"{origin.url}/loop"), CollectingSink(), redirects=5)
        assert origin.count("/loop") == 6


def test_another_port_or_name_of_this_machine_is_refused_and_never_connected_to() -> None:
    with OriginStub({"/secret": Route(body=b"secret")}) as other, OriginStub({}) as origin:
        for number, host in enumerate(("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.0.0.2", "0.0.0.0")):
            origin.add(f"/{number}", Route(redirect_to=f"http://{host}:{other.port}/secret"))
            with pytest.raises(OriginRefused, match="not allowed"):
                fetch(getfile_request(f"{origin.url}/{number}"), CollectingSink())
        assert other.requests == []


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[fe80::1]", "[fd00:ec2::254]", "224.0.0.1"])
def test_addresses_that_lead_inwards_are_refused_before_a_packet(host: str) -> None:
    routes = {"/x": Route(redirect_to=f"http://{host}/latest/meta-data/")}
    with OriginStub(routes) as origin, pytest.raises(OriginRefused, match="not allowed"):
        fetch(getfile_request(f"{origin.url}/x"), CollectingSink())


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://h/x", "gopher://h/x", "http://u:p@127.0.0.1/x"])
def test_other_schemes_and_user_names_are_refused(target: str) -> None:
    with OriginStub({"/x": Route(redirect_to=target)}) as origin:
        sink = CollectingSink()
        with pytest.raises(OriginRefused):
            fetch(getfile_request(f"{origin.url}/x"), sink)
        assert sink.body == b""


@pytest.mark.parametrize(
    "target", [b"http://h\xe9/", b"http://h\\@g/", b"http://[::1/", b"http://h:99999/", b"http:///x", b"http://%00/"]
)
def test_a_location_that_cannot_be_read_safely_is_refused(target: bytes) -> None:
    reply = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + target + b"\r\n\r\n"
    with RawServer([reply]) as server, pytest.raises(OriginError):
        fetch(getfile_request(f"http://127.0.0.1:{server.port}/x"), CollectingSink())


def test_an_origin_that_no_address_of_is_allowed() -> None:
    for url in ("http://0.0.0.0:1/", "http://224.0.0.1:1/", "http://255.255.255.255:1/"):
        with pytest.raises(OriginRefused, match="not allowed"):
            fetch(getfile_request(url), CollectingSink())


def test_one_refused_address_leaves_the_others_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost is ::1 and 127.0.0.1 to libcurl: with the first one refused the second one serves."""
    monkeypatch.setattr("webproxy.origin.hop.may_connect", lambda address, *, named_by_operator: address.version == 4)
    with OriginStub({"/x": Route(body=b"abc")}) as origin:
        sink = CollectingSink()
        assert fetch(getfile_request(f"http://localhost:{origin.port}/x"), sink).status == 200
    assert sink.body == b"abc"
