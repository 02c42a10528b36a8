"""Siblings: the other proxies of this user, workers or not, hear of a purge that a cache could not be told.

Each of them withholds the objects too, and tells the cache as if the purge were its own: whoever reaches the cache
first does it for all, and the end of one loses nothing. They are asked by HTTP over the private sockets on which they
show their fetches (docs/protocol.md 11), and found in the registry. A purge that the cache has answered costs nothing
of this.
"""

from __future__ import annotations

import binascii
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Final, NamedTuple

from shmchannel.deadline import Deadline
from shmchannel.registry import Registry
from webproxy.http.messages import RequestHead
from webproxy.store.pending_purges import Purge
from webproxy.transport import sockets

TELL_SECONDS: Final = 1.0
"""How long all siblings together may take to answer: one that hangs hears of it from the socket's queue."""
WITHHELD: Final = 204
"""Status of a sibling that uses nothing of the purge from now on."""
NO_SUCH_CACHE: Final = 404
"""Status of a sibling that has nothing to do with this cache, and does not concern itself with the purge."""
_METHOD: Final = b"PURGE"
_CACHE_FIELD: Final = b"GFCache-Cache"
_KEY_FIELD: Final = b"GFCache-Key"
_REACH_FIELD: Final = b"GFCache-Reach"
_PREFIX, _BELOW, _SOFT = b"prefix", b"below", b"soft"


class Missed(NamedTuple):
    """A purge, and the queue of the cache that does not know of it."""

    queue_name: str
    purge: Purge


class Told(NamedTuple):
    """How many processes that use the cache know of a purge now, and how many have not said so in time."""

    knowing: int
    silent: int


def request_of(missed: Missed) -> bytes:
    """The request that tells of it."""
    key, prefix, below, invalidate = missed.purge
    reach = [_PREFIX] * prefix + [_BELOW] * below + [_SOFT] * invalidate
    lines = (
        _METHOD + b" / HTTP/1.1",
        b"Host: sibling",
        _CACHE_FIELD + b": " + b64encode(missed.queue_name.encode()),
        _KEY_FIELD + b": " + b64encode(key),
        _REACH_FIELD + b": " + b" ".join(reach),
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


def missed_in(request: RequestHead) -> Missed | None:
    """What a request of a sibling tells of; None if it is none."""
    key, cache = request.fields.get(_KEY_FIELD.lower()), request.fields.get(_CACHE_FIELD.lower())
    if request.method != _METHOD or key is None or not cache:
        return None
    reach = (request.fields.get(_REACH_FIELD.lower()) or b"").split()
    try:
        purge = Purge(b64decode(key, validate=True), _PREFIX in reach, _BELOW in reach, _SOFT in reach)
        return Missed(b64decode(cache, validate=True).decode(), purge)
    except (binascii.Error, UnicodeDecodeError):
        return None


def sockets_of_proxies() -> list[str]:
    """The names of the private sockets of all proxies of this user that have announced themselves."""
    pools = (member.entry.facts.get("pool", "") for member in Registry().find("proxy"))
    return [pool for pool in pools if pool]


class Siblings:
    """Those of one process; thread-safe."""

    def __init__(self, own: str, find: Callable[[], Iterable[str]] = sockets_of_proxies) -> None:
        """`own` is the name of this process's private socket."""
        self._own = own
        self._find = find

    def tell(self, missed: Missed) -> Told:
        """Tell all others, and wait until they know, for at most TELL_SECONDS."""
        request, deadline = request_of(missed), Deadline.after(TELL_SECONDS)
        knowing = silent = 0
        with ExitStack() as opened:
            told = []
            for name in self._find():
                if name == self._own:
                    continue
                connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.settimeout(max(0.001, deadline.remaining()))
                try:
                    connection.connect("\0" + name)
                    if sockets.is_own_user(connection):
                        connection.sendall(request)
                        told.append(connection)
                except ConnectionRefusedError:  # it has ended, or shows no fetches
                    continue
                except OSError:
                    silent += 1
            for connection in told:
                connection.settimeout(max(0.001, deadline.remaining()))
                status = _status_from(connection)
                knowing += status == WITHHELD
                silent += status not in (WITHHELD, NO_SUCH_CACHE)
        return Told(knowing, silent)


def _status_from(connection: socket.socket) -> int | None:
    """The status that a sibling answers in time, or None."""
    try:
        answer = connection.recv(4096)
    except OSError:
        return None
    return next((status for status in (WITHHELD, NO_SUCH_CACHE) if answer.startswith(b"HTTP/1.1 %d " % status)), None)


def nobody(_missed: Missed) -> Told:
    """There are no siblings."""
    return Told(0, 0)
