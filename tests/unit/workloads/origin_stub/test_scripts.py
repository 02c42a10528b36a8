"""The stub's scripts for HTTP tests: bodies, turns, choices, early answers, trailers and TLS, over real sockets."""

import http.client
import json
import socket
import ssl
from pathlib import Path

from tests.support.certificates import Authority, needs_openssl
from tests.support.waiting import wait_until
from workloads.origin_stub import Framing, OriginStub, Request, Route


def ask(
    origin: OriginStub, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(origin.host, origin.port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        with connection.getresponse() as response:
            return response.status, response.read()
    finally:
        connection.close()


def raw(origin: OriginStub, sent: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    with socket.create_connection((origin.host, origin.port), timeout=60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_routes_take_turns_and_the_last_one_stays() -> None:
    with OriginStub({"/a": [Route(body=b"1"), Route(status=500), Route(body=b"3")]}) as origin:
        assert [ask(origin, "/a")[0] for _ in range(4)] == [200, 500, 200, 200]
        origin.add("/a", [Route(body=b"new"), Route(body=b"newer")])
        assert [ask(origin, "/a")[1] for _ in range(3)] == [b"new", b"newer", b"newer"]


def test_a_route_may_be_chosen_by_the_request() -> None:
    def by_language(request: Request) -> Route:
        return Route(body=request.headers["accept-language"].encode(), headers={"Vary": "Accept-Language"})

    with OriginStub({"/a": Route(choose=by_language)}) as origin:
        assert [ask(origin, "/a", {"Accept-Language": name})[1] for name in ("de", "fr")] == [b"de", b"fr"]


def test_bodies_of_requests_are_remembered_and_echoed() -> None:
    with OriginStub({"/a": Route(methods={"POST", "PUT"}, status=201, echo=True)}) as origin:
        status, body = ask(origin, "/a", {"X-A": "b"}, "POST", b"hi\xff")
        assert status == 201
        echoed = json.loads(body)
        assert (echoed["method"], echoed["path"], echoed["body"]) == ("POST", "/a", "hi\xff")
        assert ["X-A", "b"] in echoed["fields"]
        assert ask(origin, "/a")[0] == 405
        chunked = b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        assert raw(origin, chunked).startswith(b"HTTP/1.1 201 Created\r\n")
        assert [request.body for request in origin.requests] == [b"hi\xff", b"", b"ab"]


def test_a_request_that_ends_short_was_none() -> None:
    with OriginStub({"/a": Route(methods={"PUT"})}) as origin:
        with socket.create_connection((origin.host, origin.port), timeout=60) as connection:
            connection.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
        assert origin.requests == []


def test_expect_is_answered_before_the_body_is_read() -> None:
    head = b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    with OriginStub({"/a": Route(methods={"PUT"}, status=204, bare=True)}) as origin:
        with socket.create_connection((origin.host, origin.port), timeout=60) as connection:
            connection.sendall(head)
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert origin.requests == []
            connection.sendall(b"ok")
            assert connection.recv(100) == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
        assert origin.requests[0].body == b"ok"


def test_an_answer_at_once_leaves_the_body_alone() -> None:
    route = Route(methods={"PUT"}, status=413, body=b"no", bare=True, reads_body=False)
    with OriginStub({"/a": route}) as origin, socket.create_connection((origin.host, origin.port), 60) as connection:
        connection.sendall(b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\npart")
        received = b"".join(iter(lambda: connection.recv(100), b""))
        assert received.split(b"\r\n")[0] == b"HTTP/1.1 413 Request Entity Too Large"
        assert received.endswith(b"\r\n\r\nno")
        assert origin.requests[0].body == b""


def test_interim_answers_and_trailers_are_on_the_wire() -> None:
    route = Route(
        body=b"abc",
        bare=True,
        ranges=False,
        interim=[(103, {"Link": "</a>"})],
        framing=Framing.CHUNKED,
        trailers={"Digest": "z"},
    )
    with OriginStub({"/a": route}) as origin:
        assert raw(origin, b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n") == (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n0\r\nDigest: z\r\n\r\n"
        )


def test_a_chunked_answer_to_head_has_no_last_chunk() -> None:
    with OriginStub({"/a": Route(body=b"abc", framing=Framing.CHUNKED)}) as origin:
        assert raw(origin, b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n").endswith(b"\r\n\r\n")


@needs_openssl
def test_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with OriginStub({"/a": Route(body=b"x" * 100_000)}, tls=authority.server_context()) as origin:
        assert origin.url == f"https://127.0.0.1:{origin.port}"
        context = ssl.create_default_context(cafile=authority.ca_file)
        connection = http.client.HTTPSConnection(origin.host, origin.port, timeout=60, context=context)
        for _ in range(2):
            connection.request("GET", "/a")
            with connection.getresponse() as response:
                assert response.read() == b"x" * 100_000
        connection.close()


@needs_openssl
def test_leaving_ends_a_handshake_that_never_comes(tmp_path: Path) -> None:
    with OriginStub({}, tls=Authority(tmp_path).server_context()) as origin:
        silent = socket.create_connection((origin.host, origin.port), timeout=60)
        wait_until(lambda: origin.connection_count)
    with silent:
        assert silent.recv(10) == b""
