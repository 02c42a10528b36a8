"""pass_through: the clients to which interim responses go; the rest is in tests/http."""

from __future__ import annotations

import pytest

from tests.support.http_values import fields
from tests.support.streams import client_stream
from tests.support.tcp import connected
from webproxy.exchange.pass_through import send_interim
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.transport import sockets


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
