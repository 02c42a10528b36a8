"""SHA-256 of files and of an origin's responses, to compare copies with their source."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

_ORIGIN_TIMEOUT_S = 60.0


def digest(path: str) -> str:
    """The digest of one file, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def origin_digest(url: str) -> str:
    """The digest of the origin's response, requested directly, not through a proxy. Raises OSError."""
    whole = hashlib.sha256()
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=_ORIGIN_TIMEOUT_S) as reply:
            while block := reply.read(1 << 20):
                whole.update(block)
    except HTTPException as error:
        raise OSError(f"{url}: {error}") from error
    return whole.hexdigest()


def wanted_digests(paths: Sequence[str], directory: str | None, origin_url: str | None) -> Iterator[tuple[str, str]]:
    """Each path with the digest of its source: a file below `directory`, or the origin's response."""
    for path in paths:
        if directory is not None:
            yield path, digest(os.path.join(directory, path.removeprefix("/")))
        else:
            yield path, origin_digest(f"{origin_url}{path}")
