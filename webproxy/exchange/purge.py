"""Purges: what requests remove from the cache: PURGE, from whoever may, and what the answer to a POST makes invalid."""

from __future__ import annotations

import ipaddress

from webproxy.exchange.context import RequestContext
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.http.messages import ResponseHead
from webproxy.http.urls import split_target
from webproxy.origin.response_head import OriginResponse
from webproxy.store.lookup import KEY_BYTES_MAX
from webproxy.store.updates import CacheUpdater

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Purges:
    """Shared by all workers."""

    def __init__(self, updates: CacheUpdater, replies: ResponseHeads, networks: Networks) -> None:
        """`networks` are those of the clients that may purge; without a store nobody may."""
        self._updates = updates
        self._replies = replies
        self._networks = networks

    def invalidate(self, context: RequestContext, response: OriginResponse) -> bool:
        """Remove what the answer to a request makes invalid, before its client is told: it must not find that any more.

        Always False: the answer is for the client.
        """
        head = ResponseHead(response.status, response.fields, response.reason)
        named = split_target(context.request.target, context.request.fields.get(b"host")).authority
        self._updates.invalidate(context.target, context.request.method, head, named)
        return False

    def serve(self, context: RequestContext) -> tuple[str, bool] | None:
        """Remove what is stored for the URL, all variants; with `X-Purge: soft` it is marked stale instead.

        Returns how the request ended and whether the connection goes on; None, with nothing done, when it may not be.

        Raises:
            CacheUnavailable: the cache cannot be told.
            ClientGone: the connection is of no more use.
        """
        stream, fields, key = context.connection.stream, context.request.fields, context.target.key
        address = stream.peer_address()
        if not self._updates.keeps or address is None or not any(address in network for network in self._networks):
            return None
        soft = (fields.get(b"x-purge") or b"").lower() == b"soft"
        count = self._updates.purge(key, soft=soft) if len(key) <= KEY_BYTES_MAX else 0
        text = f"{count} objects {'marked stale' if soft else 'removed'}"
        stream.send_all(self._replies.error(200, context.said, context.now, text))
        return "purged", not context.said.closes
