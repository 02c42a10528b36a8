"""Downloads files over HTTP from the proxy, on one connection: their digests, and whether they were hits."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

_TIMEOUT_S = 60.0
_is_plain = re.compile(r"/[\w/.~!$&'()*+,;=:@-]*", re.ASCII).fullmatch


class HttpFailed(Exception):
    """The proxy did not answer with the file."""


@dataclass(frozen=True, slots=True)
class HttpFile:
    """One file as received."""

    path: str
    digest: str
    is_hit: bool


def plain_paths(paths: Iterable[str]) -> list[str]:
    """The paths that are valid in a URL unchanged: getfile names files by bytes that HTTP would have to escape."""
    return [path for path in paths if _is_plain(path)]


def fetch_over_http(port: int, paths: Iterable[str]) -> Iterator[HttpFile]:
    """Request each path from the proxy. Raises HttpFailed."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        for path in paths:
            try:
                yield _fetch(connection, path)
            except (HTTPException, OSError) as error:
                raise HttpFailed(f"{path}: {error!r}") from error


def _fetch(connection: HTTPConnection, path: str) -> HttpFile:
    connection.request("GET", path)
    answer = connection.getresponse()
    whole = hashlib.sha256()
    while block := answer.read(1 << 20):
        whole.update(block)
    if answer.status != 200:
        raise HttpFailed(f"{path}: {answer.status} {answer.reason}")
    if answer.length:  # http.client takes the end of the connection for the end of a body that is read in pieces
        raise HttpFailed(f"{path}: {answer.length} bytes are missing")
    return HttpFile(path, whole.hexdigest(), "; hit" in (answer.getheader("Cache-Status") or ""))
