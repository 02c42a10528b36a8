"""PURE: requests as the stub received them, and the byte ranges they ask for."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_BYTE_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


class BadRequestError(Exception):
    """The bytes received are not an HTTP/1.x request head."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is the target as sent, header names are in lower case, repeated fields joined by commas.

    `fields` are the same header lines as they came; `body` is without its chunks.
    """

    method: str
    path: str
    version: str
    headers: Mapping[str, str]
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def keeps_alive(self) -> bool:
        """True when the client expects the connection to stay open."""
        connection = self.headers.get("connection", "").lower()
        return connection == "keep-alive" if self.version == "HTTP/1.0" else connection != "close"

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"


def parse_head(lines: Iterable[bytes]) -> Request:
    """Make a request of the lines of its head, without line ends; BadRequestError when they are none."""
    first, *fields = [line.decode("latin-1") for line in lines] or [""]
    try:
        method, path, version = first.split(" ")
    except ValueError:
        raise BadRequestError(first) from None
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequestError(first)
    headers: dict[str, str] = {}
    received: list[tuple[str, str]] = []
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon:
            raise BadRequestError(field)
        received.append((name, value.strip()))
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return Request(method, path, version, headers, tuple(received))


def requested_range(field: str, size: int) -> tuple[int, int] | None:
    """Return the half-open range that a Range field asks of `size` bytes, None when the field must be ignored.

    An unsatisfiable range comes back empty, as (size, size). Several ranges at once are ignored (RFC 9110 14.2).
    """
    found = _BYTE_RANGE.fullmatch(field.replace(" ", ""))
    if found is None or not (found["first"] or found["last"]):
        return None
    if not found["first"]:
        return max(size - int(found["last"]), 0), size
    first = int(found["first"])
    last = int(found["last"]) if found["last"] else size - 1
    if found["last"] and last < first:
        return None
    return (first, min(last + 1, size)) if first < size else (size, size)
