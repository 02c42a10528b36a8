"""Feeding the HTTP request parser in pieces, and what came of a whole connection as one comparable value."""

from collections.abc import Iterable
from dataclasses import dataclass

from webproxy.http.messages import HttpError, RequestHead
from webproxy.http.parser import FIELDS_MAX, HEAD_BYTES_MAX, RequestParser


@dataclass(frozen=True)
class Reading:
    """The requests that came to their end, the status that ended the connection, whether something was begun."""

    requests: tuple[tuple[RequestHead, bytes], ...] = ()
    refused: int | None = None
    unfinished: bool = False


def read_connection(
    parts: Iterable[bytes], *, head_bytes_max: int = HEAD_BYTES_MAX, fields_max: int = FIELDS_MAX
) -> Reading:
    """Read these parts as they would be received, taking every body."""
    parser = RequestParser(head_bytes_max=head_bytes_max, fields_max=fields_max)
    requests: list[tuple[RequestHead, bytes]] = []
    head, body = None, b""
    try:
        for part in parts:
            received = b""
            if head is None:
                head = parser.feed(part)
            else:
                received = part
            while head is not None:
                body += parser.body(received)
                if not parser.body_complete:
                    break
                requests.append((head, body))
                received = body = b""
                head = parser.next_head()
    except HttpError as error:
        return Reading(tuple(requests), refused=error.status)
    return Reading(tuple(requests), unfinished=parser.buffered or not parser.body_complete)
