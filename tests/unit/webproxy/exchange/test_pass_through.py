"""pass_through: how a forwarded body is framed, and to whom interim answers go; the rest is in tests/http."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields
from tests.support.streams import client_stream
from tests.support.tcp import connected
from webproxy.exchange.pass_through import body_framing, send_interim
from webproxy.exchange.response_heads import CLOSES, STAYS, Connection
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.response_head import OriginResponse
from webproxy.transport import sockets


@pytest.mark.parametrize(
    ("method", "version", "status", "length", "framing", "connection"),
    [
        pytest.param(b"GET", (1, 1), 200, 5, b"Content-Length: 5\r\n", STAYS, id="length"),
        pytest.param(b"GET", (1, 1), 200, None, b"Transfer-Encoding: chunked\r\n", STAYS, id="chunks"),
        pytest.param(b"GET", (1, 0), 200, None, b"", CLOSES, id="the-end-of-the-connection"),
        pytest.param(b"GET", (1, 0), 200, 5, b"Content-Length: 5\r\n", STAYS, id="old-with-length"),
        pytest.param(b"HEAD", (1, 1), 200, 0, b"", STAYS, id="head"),
        pytest.param(b"GET", (1, 1), 204, 0, b"", STAYS, id="no-content"),
        pytest.param(b"GET", (1, 1), 304, 0, b"", STAYS, id="not-modified"),
    ],
)
def test_framing(
    method: bytes, version: tuple[int, int], status: int, length: int | None, framing: bytes, connection: Connection
) -> None:
    request = RequestHead(method, b"/", version, Fields())
    response = OriginResponse(status=status, fields=Fields(), length=length)
    assert body_framing(request, response, STAYS) == (framing, connection)


@pytest.mark.parametrize(
    ("version", "status", "sent"),
    [
        ((1, 1), 103, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ((1, 1), 102, b"HTTP/1.1 102 Processing\r\nLink: </a>\r\n\r\n"),
        ((1, 1), 100, b""),
        ((1, 0), 103, b""),
    ],
)
def test_interim_answers(version: tuple[int, int], status: int, sent: bytes) -> None:
    request = RequestHead(b"GET", b"/", version, Fields())
    with connected() as (fd, client):
        stream = client_stream(fd)
        send_interim(stream, request, status, fields(b"Link: </a>", b"Connection: X", b"X: 1"))
        sockets.close(fd)
        assert b"".join(iter(lambda: client.recv(4096), b"")) == sent
