"""A helper: the scripted origin of the commands in this folder. Answers `{}` with its URL and counts.

A query makes as many objects of a path as are wanted; each target has bytes of its own (scripts.stress.contents).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from scripts.stress.contents import body_of, etag_of
from scripts.stress.helper import Answer, answer_lines
from workloads.origin_stub import Framing, OriginStub, Request, Route

HIT_BYTES = 8192
DOWNLOAD_BYTES = 24_000_000
SIZES = {
    "/hit": HIT_BYTES,
    "/silent": HIT_BYTES,
    "/late5": HIT_BYTES,
    "/late2": HIT_BYTES,
    "/slow24": DOWNLOAD_BYTES,
    "/large": 16_000_000,
    "/four": 4_000_000,
    "/twenty": 20_000_000,
    "/pass": 4_000_000,
    "/small": 5_000,
    "/middle": 300_000,
    "/chunked": 200_000,
    "/short": 300_000,
    "/reset": 300_000,
    "/busy": 5_000,
    "/tardy": 5_000,
    "/uncached": 40_000,
    "/torn": 200_000,
    "/brief": 20_000,
    "/language": 30_000,
}
"""Bytes of the objects of each path."""


def content(target: str) -> bytes:
    """The whole object of a target."""
    return body_of(target, SIZES[urlsplit(target).path])


def _stored(**behaviour: object) -> Callable[[Request], Route]:
    """A route that may be stored for an hour, with a strong validator, and with this behaviour."""

    def choose(request: Request) -> Route:
        target = request.path
        etag = etag_of(target, SIZES[urlsplit(target).path])
        headers = {"Cache-Control": "max-age=3600", "ETag": etag}
        return Route(**{"body": content(target), "headers": headers, **behaviour})  # type: ignore[arg-type]

    return choose


def content_in(language: str, target: str) -> bytes:
    """The whole object of a target that has one for each language."""
    return body_of(f"{language} {target}", SIZES["/language"])


def _in_language(request: Request) -> Route:
    language = request.headers.get("accept-language", "")
    etag = etag_of(f"{language} {request.path}", SIZES["/language"])
    headers = {"Cache-Control": "max-age=3600", "ETag": etag, "Vary": "Accept-Language"}
    return Route(body=content_in(language, request.path), headers=headers)


def _brief(request: Request) -> Route:
    """Stale at once, so that the next request validates it."""
    etag = etag_of(request.path, SIZES["/brief"])
    return Route(body=content(request.path), headers={"Cache-Control": "max-age=0", "ETag": etag})


def _torn(request: Request) -> Route:
    """Breaks off, and has no validator by which the rest could be asked for."""
    return Route(body=content(request.path), truncate_at=90_000, headers={"Cache-Control": "max-age=3600"})


def _uncached(request: Request) -> Route:
    return Route(body=content(request.path), headers={"Cache-Control": "no-store"})


def _passed(_: Request) -> Route:
    """One body for all: a thousand of its size would not fit into memory."""
    return Route(body=content("/pass"), headers={"Cache-Control": "no-store"})


_FREELY = ("GET", "HEAD", "POST", "PUT")
_BEHAVIOURS: dict[str, Callable[[Request], Route]] = {
    "/hit": _stored(),
    "/silent": _stored(delay_s=120.0),
    "/late5": _stored(delay_s=5.0),
    "/late2": _stored(delay_s=2.0),
    "/slow24": _stored(drip_bytes_per_s=4_000_000.0),
    "/large": _stored(),
    "/four": _stored(),
    "/twenty": _stored(),
    "/pass": _passed,
    "/small": _stored(),
    "/middle": _stored(),
    "/chunked": _stored(framing=Framing.CHUNKED),
    "/short": _stored(truncate_at=100_000),
    "/reset": _stored(reset_at=150_000),
    "/busy": lambda _: Route(status=503, body=b"busy\n"),
    "/tardy": _stored(delay_s=0.4),
    "/uncached": _uncached,
    "/torn": _torn,
    "/brief": _brief,
    "/language": _in_language,
}


def routes() -> dict[str, Route]:
    """What the origin answers, by path; uploads are echoed."""
    scripted = {path: Route(choose=choose, methods=_FREELY) for path, choose in _BEHAVIOURS.items()}
    return {**scripted, "/upload": Route(methods=_FREELY, echo=True, headers={"Cache-Control": "no-store"})}


async def _main() -> None:
    with OriginStub(routes()) as origin:

        async def handle(command: Answer) -> Answer:
            if command.get("do") == "forget":
                origin.forget_requests()
            counts = Counter(urlsplit(request.path).path for request in origin.requests)
            return {"url": origin.url, "requests": counts, "connections_peak": origin.connections_peak}

        await answer_lines(handle)


if __name__ == "__main__":
    asyncio.run(_main())
