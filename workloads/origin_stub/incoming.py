"""Reads requests from a connection: the head, then the body, chunked or by length."""

from io import BufferedReader

from workloads.origin_stub.request import BadRequestError, Request, parse_head

_LINE_BYTES_MAX = 64 * 1024


def read_head(reader: BufferedReader) -> Request | None:
    """Read one request without its body; None at the end of the connection, BadRequestError if it is invalid."""
    lines: list[bytes] = []
    while (line := reader.readline(_LINE_BYTES_MAX)) not in (b"\r\n", b"\n"):
        if not line.endswith(b"\n"):
            return None
        lines.append(line.rstrip(b"\r\n"))
    return parse_head(lines)


def read_body(reader: BufferedReader, request: Request) -> bytes | None:
    """Read the body that the head announces; None if it ends early, BadRequestError for invalid framing."""
    coding = request.headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise BadRequestError(f"transfer-encoding: {coding}")
        return _read_chunks(reader)
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise BadRequestError(f"content-length: {length}")
    body = reader.read(int(length))
    return body if len(body) == int(length) else None


def _read_chunks(reader: BufferedReader) -> bytes | None:
    """The decoded body; its trailers are read and discarded."""
    body = bytearray()
    while line := reader.readline(_LINE_BYTES_MAX):
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadRequestError(f"chunk size {line[:32]!r}") from None
        if not size:
            while (line := reader.readline(_LINE_BYTES_MAX)) not in (b"\r\n", b"\n", b""):
                pass
            return bytes(body) if line else None
        body += reader.read(size)
        reader.readline(_LINE_BYTES_MAX)
    return None
