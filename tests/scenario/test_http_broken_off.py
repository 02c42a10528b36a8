"""HTTP with whole daemons, where a body or a client breaks off: nobody takes a part for all, and nothing leaks."""

from __future__ import annotations

import select
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.support.contents import write_files
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.http_wire import HttpClient, request
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import Framing, OriginStub, Route

BODY = bytes(range(256)) * 4000
RESET_AT_CLOSE = struct.pack("@ii", 1, 0)


@pytest.fixture
def proxy(yard: DaemonYard, origin: OriginStub) -> DaemonProcess:
    """With two segments, and a cache."""
    yard.start_cache("-t", "2")
    return yard.start_proxy("-t", "4", "-n", "2", "-s", origin.url, env={"WEBPROXY_ORIGIN_TRIES": "1"})


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("fault", [{"truncate_at": 300_000}, {"reset_at": 300_000}])
def test_an_http_1_0_client_sees_that_a_body_broke_off(
    proxy: DaemonProcess, origin: OriginStub, fault: dict[str, int], method: bytes
) -> None:
    """Only the end of the connection ends its body: a normal one would make a part look whole."""
    origin.add("/x", Route(methods={"GET", "POST"}, body=BODY, framing=Framing.CHUNKED, **fault))
    with HttpClient(proxy.port) as client:
        client.send(request("/x", b"Content-Length: 0", method=method, version=b"1.0"))
        with pytest.raises(ConnectionResetError):
            client.rest()
    origin.add("/x", Route(methods={"GET", "POST"}, body=BODY, framing=Framing.CHUNKED))
    with HttpClient(proxy.port) as client:
        answer = client.send(request("/x", b"Content-Length: 0", method=method, version=b"1.0")).answer()
        assert (answer.body, answer.closes) == (BODY, True)
    assert proxy.stop() == 0


@pytest.mark.parametrize("asked_range", [b"bytes=1000-99999", b"bytes=0-9,1000-99999"])
def test_clients_that_leave_during_a_validation_leave_no_segment_behind(
    proxy: DaemonProcess, origin: OriginStub, asked_range: bytes
) -> None:
    headers = {"ETag": '"a"', "Cache-Control": "max-age=0"}
    origin.add("/x", Route(body=BODY, headers=headers))
    for number in range(4):  # a URL each: a request could share the validation that the client before it has left
        path, gate = f"/{number}", threading.Event()
        route = Route(body=BODY, headers=headers, hold=gate, hold_head=True)
        origin.add(path, Route(body=BODY, headers=headers))
        with HttpClient(proxy.port) as client:
            assert client.ask(path).body == BODY
        origin.add(path, route)
        with HttpClient(proxy.port) as client:
            client.send(request(path, b"Range: " + asked_range))
            assert route.reached.wait(WATCHDOG_S)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        gate.set()
    origin.add("/x", Route(body=BODY, headers=headers))
    with HttpClient(proxy.port) as client:
        assert client.ask("/x").body == BODY
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["leased"] == 0


def test_no_second_head_is_sent_into_a_body_when_an_upload_turns_bad(yard: DaemonYard, origin: OriginStub) -> None:
    """The origin is asked once the upload has filled the spool's window."""
    proxy = yard.start_proxy("--no-cache", "-s", origin.url, env={"WEBPROXY_SPOOL_WINDOW_BYTES": "65536"})
    gate = threading.Event()
    route = Route(methods={"POST"}, reads_body=False, body=b"o" * 100_000, hold=gate, hold_at=50_000)
    origin.add("/early", route)
    with HttpClient(proxy.port) as client:
        chunk = b"10001\r\n%s\r\n" % bytes(0x10001)
        client.send(request("/early", b"Transfer-Encoding: chunked", method=b"POST") + chunk)
        assert route.reached.wait(WATCHDOG_S)

        def has_come() -> bool:
            """The proxy looks at the origin between two parts of the upload."""
            client.send(b"5\r\nhello\r\n")
            return bool(select.select([client.socket], [], [], 0.01)[0])

        wait_until(has_come, what="the beginning of the answer")
        client.send(b"no chunk\r\n")
        received = client.rest()
        gate.set()
    assert received.count(b"HTTP/1.1 ") == 1
    assert proxy.stop() == 0


def test_a_reload_of_a_file_of_the_caches_own_is_answered_with_the_file(yard: DaemonYard, tmp_path: Path) -> None:
    """No origin could confirm it; the cache has just looked at it."""
    bodies = write_files(tmp_path / "files", {"page.html": 3000, "large": 500_000})
    yard.start_cache(content=tmp_path / "files")
    proxy = yard.start_proxy()
    with HttpClient(proxy.port) as client:
        for path, body in bodies.items():
            for line in (b"Cache-Control: max-age=0", b"Cache-Control: no-cache", b"Pragma: no-cache",
                         b"Cache-Control: no-store", b"Cache-Control: min-fresh=4000000000"):  # fmt: skip
                answer = client.ask(path, line)
                assert (answer.status, answer.body) == (200, body), line
        assert client.ask("/none", b"Cache-Control: max-age=0").status == 404
    assert proxy.stop() == 0
