"""RequestIds: names of requests by which the lines of one can be found in all logs.

An id is a word of at most ID_BYTES_MAX bytes: a token of the process and a number, so that ids of several workers and
proxies do not meet, or what the client has sent as X-Request-Id, if the settings trust it and it is such a word.
"""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

FIELD: Final = b"X-Request-Id"
ID_BYTES_MAX: Final = 64
_is_id = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,64}").fullmatch


class RequestIds:
    """Thread-safe."""

    def __init__(self, *, from_client: bool = False, in_heads: bool = False) -> None:
        """`from_client`: a client may name its requests."""
        self.in_heads = in_heads
        """Responses and requests to origins say the id."""
        self._from_client = from_client
        self._token = secrets.token_hex(4).encode()
        self._numbers = itertools.count(1)

    def next(self) -> bytes:
        """An id that nobody has had."""
        return b"%s-%x" % (self._token, next(self._numbers))

    @property
    def token_of_another(self) -> bytes:
        """A token for ids that somebody else counts."""
        return secrets.token_hex(4).encode()

    def in_head(self, request_id: bytes) -> bytes:
        """The line for a head."""
        return b"%s: %s\r\n" % (FIELD, request_id)

    def of_request(self, sent: bytes | None) -> bytes:
        """The id of a request whose X-Request-Id is `sent`."""
        return sent if self._from_client and sent is not None and _is_id(sent) else self.next()
