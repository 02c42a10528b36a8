"""CachedReply: a whole reply that is right for every equal request until something changes, and knows when it does."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import NamedTuple

from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_reader import EntryVersion
from webproxy.caching.freshness import current_age
from webproxy.caching.stored import StoredResponse
from webproxy.http.messages import RequestHead


class CachedReply:
    """Never changed, and shared by all that ask alike. `data` is head and body, or with a `file` the head alone."""

    __slots__ = ("_age_s", "_stored", "_watch", "closes", "data", "file", "key")

    def __init__(
        self,
        key: bytes,
        data: bytes,
        file: HotTableFile | None,
        *,
        closes: bool,
        stored: StoredResponse,
        age_s: int,
        watch: EntryVersion,
    ) -> None:
        """It was made of `stored` at `age_s`; `watch` tells of the object on the hot table."""
        self.key = key
        self.data = data
        self.file = file
        self.closes = closes
        self._stored = stored
        self._age_s = age_s
        self._watch = watch

    def holds(self) -> bool:
        """True while it would be made like this again: the object is there, and the age in the head is its age."""
        return current_age(self._stored, time()) == self._age_s and self._watch.holds()


class MemoizedRequest(NamedTuple):
    """A request that was answered before in these very bytes, and a reply to it that holds."""

    request: RequestHead
    reply: CachedReply

    @property
    def target(self) -> bytes:
        """As RequestHead has it."""
        return self.request.target


Recognise = Callable[[bytes], MemoizedRequest | None]
"""What these bytes are, if they are known."""


def recognise_nothing(_data: bytes) -> MemoizedRequest | None:
    """Where there are no quick replies."""
    return None
