"""The heads of HTTP messages as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from webproxy.http.fields import Fields


class Framing(Enum):
    """How the length of a message body is determined (RFC 9112 section 6.3)."""

    NONE = "no body"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "until the connection closes"


@dataclass(slots=True, unsafe_hash=True)
class RequestHead:
    """One request without its body. `target` is as received; `version` is (1, 0) or (1, 1).

    Never modified, but not declared frozen: constructing a frozen one takes four times as long, once per request.
    """

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: Fields
    framing: Framing = Framing.NONE
    content_length: int = 0
    keep_alive: bool = True
    """The client allows the connection to persist after the response (RFC 9112 section 9.3)."""
    expects_continue: bool = False


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """One response without its body; `fields` as received from an origin, or as to be sent to a client."""

    status: int
    fields: Fields
    reason: bytes = b""
