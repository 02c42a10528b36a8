"""Feeding GETFILE parsers in pieces, and what came of it as one comparable value."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from webproxy.getfile import RemoteProtocolError, Reply, ReplyParser, Violation, parse_request

RequestResult = bytes | Violation | None
ReplyResult = tuple[Reply, bytes] | Violation | None


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut `data` at the given offsets; offsets beyond it do nothing."""
    marks = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(marks)]


def ways_to_cut(data: bytes) -> Iterator[Sequence[bytes]]:
    """Yield `data` whole, a byte at a time, and in two at every place."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def feed_request(parts: Iterable[bytes]) -> RequestResult:
    """Return the path, the first violation, or None when all the parts are only a beginning."""
    received = b""
    path: bytes | None = None
    for part in parts:
        received += part
        try:
            path = parse_request(received)
        except RemoteProtocolError as error:
            return error.kind
    return path


def feed_reply(parts: Iterable[bytes]) -> ReplyResult:
    """Return the header and what follows it, the first violation, or None when the parts are only a beginning."""
    parser, reply = ReplyParser(), None
    rest = b""
    for part in parts:
        if reply is not None:
            rest += part
            continue
        try:
            reply = parser.receive_data(part)
        except RemoteProtocolError as error:
            return error.kind
        rest = parser.rest
    return None if reply is None else (reply, rest)
