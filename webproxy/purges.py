"""Purges: what requests remove from the cache: PURGE, from whoever may, and what the answer to a POST makes invalid."""

from __future__ import annotations

import ipaddress

from webproxy.http.messages import ResponseHead
from webproxy.lookup import KEY_BYTES_MAX
from webproxy.object_writer import ObjectWriter
from webproxy.origin_head import OriginResponse
from webproxy.replies import Replies
from webproxy.urls import split_target
from webproxy.visit import Visit

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Purges:
    """Shared by all workers."""

    def __init__(self, writer: ObjectWriter | None, replies: Replies, networks: Networks) -> None:
        """`networks` are those of the clients that may purge; without a writer nobody may."""
        self._writer = writer
        self._replies = replies
        self._networks = networks

    def invalidate(self, visit: Visit, response: OriginResponse) -> bool:
        """Remove what the answer to a request makes invalid, before its client is told: it must not find that any more.

        Always False: the answer is for the client.
        """
        if self._writer is not None:
            head = ResponseHead(response.status, response.fields, response.reason)
            named = split_target(visit.request.target, visit.request.fields.get(b"host")).authority
            self._writer.invalidate(visit.target, visit.request.method, head, named)
        return False

    def serve(self, visit: Visit) -> tuple[str, bool] | None:
        """Remove what is stored for the URL, all variants; with `X-Purge: soft` it is marked stale instead.

        Returns how the request ended and whether the connection goes on; None, with nothing done, when it may not be.

        Raises:
            CacheUnavailable: the cache cannot be told.
            ClientGone: the connection is of no more use.
        """
        stream, fields, key = visit.connection.stream, visit.request.fields, visit.target.key
        address = stream.peer_address()
        if self._writer is None or address is None or not any(address in network for network in self._networks):
            return None
        soft = (fields.get(b"x-purge") or b"").lower() == b"soft"
        count = self._writer.purge(key, soft=soft) if len(key) <= KEY_BYTES_MAX else 0
        text = f"{count} objects {'marked stale' if soft else 'removed'}"
        stream.send_all(self._replies.error(200, visit.said, visit.now, text))
        return "purged", not visit.said.closes
