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
from webproxy.transport.job import RequestOutcome

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Purges:
    """Shared by all workers."""

    def __init__(self, updates: CacheUpdater, heads: ResponseHeads, networks: Networks) -> None:
        """`networks` are those of the clients that may purge; without a store nobody may."""
        self._updates = updates
        self._heads = heads
        self._networks = networks

    def invalidate(self, context: RequestContext, response: OriginResponse) -> None:
        """Remove what a response invalidates, before its client is told: it must not find that again."""
        head = ResponseHead(response.status, response.fields, response.reason)
        named = split_target(context.request.target, context.request.fields.get(b"host")).authority
        self._updates.invalidate(context.target, context.request.method, head, named)

    def may_purge(self, context: RequestContext) -> bool:
        """Whether this client may purge, and there is a store."""
        address = context.connection.stream.peer_address()
        if not self._updates.keeps or address is None:
            return False
        return any(address in network for network in self._networks)

    def serve(self, context: RequestContext) -> RequestOutcome:
        """Remove everything stored for the URL, with all variants; with `X-Purge: soft` invalidate it instead.

        Raises:
            CacheUnavailable: the cache cannot be told.
            ClientGone: the connection is unusable.
        """
        key = context.target.key
        soft = (context.request.fields.get(b"x-purge") or b"").lower() == b"soft"
        count = self._updates.purge(key, soft=soft) if len(key) <= KEY_BYTES_MAX else 0
        text = f"{count} objects {'marked stale' if soft else 'removed'}"
        context.connection.stream.send_all(self._heads.error(200, context.said, context.now, text))
        return context.ended("purged")
