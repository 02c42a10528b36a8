"""NoStore: what a proxy without a cache finds and keeps."""

from __future__ import annotations

from shmchannel.deadline import Deadline
from shmchannel.streams.admission import Admission
from tests.support.http_values import request, stored_response
from webproxy.store.fill import FillRequest, Fills
from webproxy.store.lookup import Lookup, ObjectLookup
from webproxy.store.pending_purges import Purge
from webproxy.store.store import Missing, NoStore, Store
from webproxy.store.updates import CacheUpdater

NEVER = Deadline(0)


def test_nothing_is_found_and_nothing_is_kept() -> None:
    store: Store = NoStore()
    assert (store.keeps, store.connected, store.others_wait) == (False, False, False)
    assert store.peek(b"/x") is None
    assert store.get(b"/x", NEVER) == store.facts(b"/x", NEVER) == Missing(nothing_below=True)
    assert store.put(b"/x", 3, b"", NEVER, wait=True) is None
    assert not store.update(b"/x", 0, b"", NEVER)
    assert store.purge(b"/x", NEVER) == 0
    assert not store.uses("/queue")
    store.purge_later(Purge(b"/x"))


def test_a_ticket_ends_with_the_miss() -> None:
    ticket = Admission(1).try_enter()
    assert ticket is not None
    NoStore().get(b"/x", NEVER, ticket=ticket)
    assert not ticket.held


def test_what_stands_on_it_finds_and_keeps_nothing_either() -> None:
    store = NoStore()
    lookup = ObjectLookup(store)
    assert lookup.find(b"/x", request(), 0.0) == Lookup(nothing_below=True)
    assert lookup.find_part(b"/x", request(), 0.0) is None
    assert CacheUpdater(store, lookup).purge(b"/x") == 0
    fill = Fills(store).begin(FillRequest(b"/x", stored_response(), 3), _Source())
    fill.pump()
    assert not fill.finish()
    assert fill.given_up
    assert fill.refusal == b"no cache connected"


class _Source:
    fd = -1
    written = 3
