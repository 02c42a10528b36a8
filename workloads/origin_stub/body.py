"""Where the bytes of a response come from: memory or a file."""

import os
from types import TracebackType
from typing import Self

from workloads.origin_stub.route import Route


class Body:
    """The object behind a route, opened for one response; close it by leaving it as a context manager."""

    def __init__(self, route: Route) -> None:
        """Open the route's file, if it has one; raises OSError."""
        self._data = memoryview(route.body)
        self._fd = -1
        self.size = len(self._data)
        if route.file_name is not None:
            self._fd = os.open(route.file_name, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return the bytes there; fewer than asked for at the end of the object."""
        if self._fd < 0:
            return self._data[offset : offset + size]
        return os.pread(self._fd, size, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
