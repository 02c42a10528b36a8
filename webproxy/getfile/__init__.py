"""The GETFILE protocol, both roles, without any I/O: the server's and the client's parsers and message builders."""

from webproxy.getfile.client import Reply, ReplyParser, request_bytes
from webproxy.getfile.errors import LocalProtocolError, ProtocolError, RemoteProtocolError, Violation
from webproxy.getfile.messages import LENGTH_MAX, PATH_BYTES_MAX, REQUEST_BYTES_MAX, Status, Wire
from webproxy.getfile.server import ok_header, parse_request, refusal

__all__ = [
    "LENGTH_MAX",
    "PATH_BYTES_MAX",
    "REQUEST_BYTES_MAX",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "Reply",
    "ReplyParser",
    "Status",
    "Violation",
    "Wire",
    "ok_header",
    "parse_request",
    "refusal",
    "request_bytes",
]
