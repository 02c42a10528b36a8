"""OpenFiles: a bounded set of descriptors kept open for the next reader.

The least recently used file that nobody reads is closed first. A file being read is never closed; once dropped, it
closes with its last reader. Opening and comparing are up to the caller; this module only keeps, pins and closes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")

Identity = tuple[int, int, int, int]


@dataclass(slots=True, eq=False)
class OpenFile(Generic[K]):
    """One open descriptor; opened by the caller, closed by OpenFiles. The identity says whether the file changed."""

    key: K
    fd: int
    identity: Identity = (0, 0, 0, 0)
    size_bytes: int = 0
    version: int = 0
    pins: int = 0
    kept: bool = False


class OpenFiles(Generic[K]):
    """Descriptors by key; thread-safe, and its lock is never held over a system call."""

    def __init__(self, files_max: int) -> None:
        self._files_max = max(1, files_max)
        self._lock = threading.Lock()
        self._files: OrderedDict[K, OpenFile[K]] = OrderedDict()
        self._closed = False

    def peek(self, key: K) -> OpenFile[K] | None:
        """Return the open file of this key without a pin: good for comparing its identity, not for reading."""
        return self._files.get(key)

    def pin(self, file: OpenFile[K]) -> bool:
        """Pin a file for reading and return True, or return False if it has been dropped."""
        with self._lock:
            if not file.kept:
                return False
            file.pins += 1
            self._files.move_to_end(file.key)
            return True

    def keep(self, file: OpenFile[K]) -> OpenFile[K]:
        """Take over a newly opened file and return it pinned, or the equal one that another thread added first."""
        leaving: list[OpenFile[K]] = []
        with self._lock:
            present = self._files.get(file.key)
            if present is not None and present.identity == file.identity:
                leaving.append(file)
                file = present
                self._files.move_to_end(file.key)
            else:
                if present is not None:
                    self._take_out(present, leaving)
                if not self._closed:
                    file.kept = True
                    self._files[file.key] = file
            file.pins += 1
            self._files_surplus(leaving)
        self._close_all(leaving)
        return file

    def release(self, file: OpenFile[K]) -> None:
        """Release one pin; the last reader of a dropped file closes it."""
        leaving: list[OpenFile[K]] = []
        with self._lock:
            assert file.pins > 0, "released more often than pinned"
            file.pins -= 1
            if not file.pins:
                if not file.kept:
                    leaving.append(file)
                elif len(self._files) > self._files_max:
                    self._files_surplus(leaving)
        if leaving:
            self._close_all(leaving)

    def drop(self, key: K) -> None:
        """Drop the file of this key, if there is one."""
        leaving: list[OpenFile[K]] = []
        with self._lock:
            present = self._files.get(key)
            if present is not None:
                self._take_out(present, leaving)
        self._close_all(leaving)

    def drop_idle(self) -> int:
        """Close every file that nobody reads and return how many, for when descriptors run out."""
        leaving: list[OpenFile[K]] = []
        with self._lock:
            for file in [file for file in self._files.values() if not file.pins]:
                self._take_out(file, leaving)
        self._close_all(leaving)
        return len(leaving)

    def kept_keys(self) -> list[K]:
        """Return the keys of all files kept."""
        with self._lock:
            return list(self._files)

    def close(self) -> None:
        """Close all files that nobody reads; the others close with their last reader. May be called twice."""
        leaving: list[OpenFile[K]] = []
        with self._lock:
            self._closed = True
            for file in list(self._files.values()):
                self._take_out(file, leaving)
        self._close_all(leaving)

    def _take_out(self, file: OpenFile[K], leaving: list[OpenFile[K]]) -> None:
        del self._files[file.key]
        file.kept = False
        if not file.pins:
            leaving.append(file)

    def _files_surplus(self, leaving: list[OpenFile[K]]) -> None:
        surplus = len(self._files) - self._files_max
        if surplus <= 0:
            return
        idle = (file for file in self._files.values() if not file.pins)
        for file in [file for file, _ in zip(idle, range(surplus), strict=False)]:
            self._take_out(file, leaving)

    @staticmethod
    def _close_all(leaving: list[OpenFile[K]]) -> None:
        for file in leaving:
            os.close(file.fd)
