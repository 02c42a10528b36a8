"""PURE: a route and a request → the head of the response and the steps of its body.

The server performs the steps in order; nothing here sends, sleeps or reads files.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from workloads.origin_stub.request import Request, requested_range
from workloads.origin_stub.route import Framing, Headers, Route, pairs_of

_LAST_CHUNK = b"0\r\n"
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for that long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Tell the test that the response has arrived here, and wait until it releases it."""


@dataclass(frozen=True, slots=True)
class SendHead:
    """Send the head."""

    head: bytes


@dataclass(frozen=True, slots=True)
class SendBody:
    """Send the bytes [start, stop) of the object."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The body is complete: send its last chunk, if it has chunks, then keep or close the connection."""

    keeps_alive: bool
    last_chunk: bytes = b""


@dataclass(frozen=True, slots=True)
class Reset:
    """Drop the connection so that the peer gets a reset."""


Step: TypeAlias = Pause | Hold | SendHead | SendBody | Finish | Reset


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is answered, before the route's misbehaviour: the status, its own headers, the bytes of the object."""

    status: int
    headers: list[tuple[str, str]]
    start: int
    stop: int
    size: int

    @property
    def has_body(self) -> bool:
        return self.status not in _NO_BODY


def plan_response(route: Route, request: Request, earlier_requests: int, size: int, error_size: int) -> list[Step]:
    """Return the steps that answer `request`, the `earlier_requests`-th (from 0) for its path.

    `size` is the size of the object; an answer that fails by `fail_first` sends `error_size` bytes from offset 0.
    """
    failing = earlier_requests < route.fail_first
    answer = _Answer(route.fail_status, [], 0, error_size, error_size) if failing else _answer(route, request, size)
    with_body = answer.has_body and request.method != "HEAD"
    ends_short = route.truncate_at is not None or route.reset_at is not None
    keeps_alive = (
        request.keeps_alive
        and route.reads_body
        and route.version != "HTTP/1.0"
        and not (with_body and (ends_short or route.framing is Framing.CLOSE))
        and (route.declared_length is None or not answer.has_body)
    )
    steps: list[Step] = [SendHead(_interim_head(status, headers)) for status, headers in route.interim]
    if route.delay_s:
        steps.append(Pause(route.delay_s))
    if route.hold is not None and route.hold_head:
        steps.append(Hold())
    steps.append(SendHead(_head(route, answer, keeps_alive=keeps_alive)))
    if with_body:
        return steps + _body_steps(route, answer, keeps_alive=keeps_alive)
    return [*steps, Finish(keeps_alive)]


def echo_body(request: Request) -> bytes:
    """Return the request as JSON, for a route that echoes."""
    return json.dumps(
        {
            "method": request.method,
            "path": request.path,
            "version": request.version,
            "fields": request.fields,
            "body": request.body.decode("latin-1"),
        }
    ).encode()


def _answer(route: Route, request: Request, size: int) -> _Answer:
    headers = pairs_of(route.headers)
    if route.redirect_to is not None:
        status = route.status if 300 <= route.status < 400 else HTTPStatus.FOUND
        return _Answer(status, [*headers, ("Location", route.redirect_to)], 0, 0, 0)
    if route.status != HTTPStatus.OK or request.method not in ("GET", "HEAD"):
        return _Answer(route.status, headers, 0, size, size)
    if route.conditions and _is_not_modified(route, request):
        return _Answer(HTTPStatus.NOT_MODIFIED, headers, 0, 0, 0)
    if not route.ranges:
        return _Answer(HTTPStatus.OK, headers, 0, size, size)
    if not route.bare and "accept-ranges" not in _names(headers):
        headers.append(("Accept-Ranges", "bytes"))
    wanted = requested_range(request.headers["range"], size) if _range_applies(route, request) else None
    if wanted is None:
        return _Answer(HTTPStatus.OK, headers, 0, size, size)
    start, stop = wanted
    if start == stop:
        return _Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, [("Content-Range", f"bytes */{size}")], 0, 0, 0)
    headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    return _Answer(HTTPStatus.PARTIAL_CONTENT, headers, start, stop, stop - start)


def _names(headers: list[tuple[str, str]]) -> set[str]:
    return {name.lower() for name, _ in headers}


def _validators(route: Route) -> tuple[str | None, str | None]:
    names = {name.lower(): value for name, value in pairs_of(route.headers)}
    return names.get("etag"), names.get("last-modified")


def _is_not_modified(route: Route, request: Request) -> bool:
    """Compare validators as strings: the stub's clients send back what they were given (RFC 9110 13.1)."""
    etag, modified = _validators(route)
    if (wanted := request.headers.get("if-none-match")) is not None:
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return etag is not None and (wanted == "*" or etag.removeprefix("W/") in tags)
    return modified is not None and request.headers.get("if-modified-since") == modified


def _range_applies(route: Route, request: Request) -> bool:
    if "range" not in request.headers or request.method != "GET":
        return False
    condition = request.headers.get("if-range")
    return condition is None or condition in _validators(route)


def _interim_head(status: int, headers: Headers) -> bytes:
    return _head_bytes(f"HTTP/1.1 {status} {_phrase(status)}", pairs_of(headers))


def _head(route: Route, answer: _Answer, *, keeps_alive: bool) -> bytes:
    """The head with what frames the body, unless the script says that itself."""
    headers = list(answer.headers)
    names = _names(headers)
    if not route.bare and "content-type" not in names:
        headers.insert(0, ("Content-Type", "application/json" if route.echo else "application/octet-stream"))
    if answer.has_body and not names & {"content-length", "transfer-encoding"}:
        if route.framing is Framing.LENGTH:
            declared = answer.size if route.declared_length is None else route.declared_length
            headers.append(("Content-Length", str(declared)))
        elif route.framing is Framing.CHUNKED:
            headers.append(("Transfer-Encoding", "chunked"))
    if not keeps_alive and "connection" not in names:
        headers.append(("Connection", "close"))
    reason = _phrase(answer.status) if route.reason is None else route.reason
    return _head_bytes(f"{route.version} {answer.status} {reason}", headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Scripted"


def _head_bytes(first: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _last_chunk(route: Route) -> bytes:
    if route.framing is not Framing.CHUNKED:
        return b""
    trailers = "".join(f"{name}: {value}\r\n" for name, value in pairs_of(route.trailers))
    return _LAST_CHUNK + trailers.encode("latin-1") + b"\r\n"


def _body_steps(route: Route, answer: _Answer, *, keeps_alive: bool) -> list[Step]:
    """Cut the body at every offset where something happens."""
    cut = {at for at in (route.truncate_at, route.reset_at) if at is not None}
    length = min({answer.size, *cut})
    happenings: list[tuple[int, Step]] = []
    if route.stall_at is not None:
        happenings.append((route.stall_at, Pause(route.stall_s)))
    if route.hold is not None and not route.hold_head:
        happenings.append((length // 2 if route.hold_at is None else route.hold_at, Hold()))
    steps: list[Step] = []
    sent = 0
    for planned_offset, step in sorted(happenings, key=lambda happening: happening[0]):
        offset = min(planned_offset, length)
        if offset > sent:
            steps.append(SendBody(answer.start + sent, answer.start + offset))
            sent = offset
        steps.append(step)
    if length > sent:
        steps.append(SendBody(answer.start + sent, answer.start + length))
    if route.reset_at is not None and route.reset_at == length:
        return [*steps, Reset()]
    # A connection that merely ends is how both a truncated body and a close-delimited one look.
    return steps if route.truncate_at == length else [*steps, Finish(keeps_alive, _last_chunk(route))]
