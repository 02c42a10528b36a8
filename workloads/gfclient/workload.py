"""Workload files: which paths to ask for, in which order.

One path per line; blank lines and lines that begin with `#` are skipped. Requests go round-robin through the list.
"""

import threading
from collections.abc import Sequence
from urllib.parse import quote_from_bytes

from webproxy.getfile import LocalProtocolError, request_bytes


class WorkloadError(Exception):
    """A workload that cannot be used; the text names the place and what to write instead."""


def read_workload(file_name: str) -> list[bytes]:
    """Read the paths of a workload file; WorkloadError names the file, the line and the remedy."""
    try:
        with open(file_name, "rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise WorkloadError(f"{file_name}: cannot read the workload file: {error.strerror}") from error
    paths = [
        check_path(text, f"{file_name}:{number}")
        for number, line in enumerate(lines, start=1)
        if (text := line.strip()) and not text.startswith(b"#")
    ]
    if not paths:
        raise WorkloadError(f"{file_name}: holds no path; write one path per line, such as /folder/file.bin")
    return paths


def check_path(path: bytes, place: str) -> bytes:
    """Return `path` when it can be requested; WorkloadError begins with `place` and says what to write instead."""
    try:
        request_bytes(path)
    except LocalProtocolError as error:
        instead = quote_from_bytes(b"/" + path.lstrip(b"/"), safe="/!$&'()*+,;=:@%?~[]#")
        remedy = f"write {instead}" if len(instead) <= 200 else "use a shorter path"
        raise WorkloadError(f"{place}: {error}; {remedy}") from error
    return path


class WorkList:
    """Hands out the requests of a run to several threads: numbers from 0 up, paths round-robin."""

    def __init__(self, paths: Sequence[bytes], request_count: int | None = None) -> None:
        if not paths:
            raise ValueError("a work list needs a path")
        self._paths = paths
        self.request_count = len(paths) if request_count is None else request_count
        self._lock = threading.Lock()
        self._next = 0

    def take(self) -> tuple[int, bytes] | None:
        """Return the number and path of the next request, None when all are handed out."""
        with self._lock:
            number = self._next
            if number >= self.request_count:
                return None
            self._next = number + 1
        return number, self._paths[number % len(self._paths)]
