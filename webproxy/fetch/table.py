"""FetchTable: one origin fetch for each missing key, however many requests ask for it (request coalescing).

Theory of operation
===================

A fetch writes into a spool. The leader, who opened it, and all followers, which ask for the same key while it runs,
read from that spool. What a fetch does is not known here; the table decides who shares it, and what is remembered of
it.

    running    under its key, until it is over: new requests are collapsed into it. A request that must bypass it opens
               a fetch of its own, which takes over the key: followers join the latest
    living     also fetches that nobody can join, because another one took over their key or a purge revoked them:
               a purge has to reach those too
    filled     the keys stored last, and when. A request that looked into the cache before that moment is sent back to
               it instead of fetching once more
    lingering  fetches whose answer was a failure (404, 5xx), for a moment: requests of many at once spread over more
               time than such an answer takes, and the origin need not say it to each

A fetch may hold leases (lease_book.py): then other processes have readers of it too. One that follows another process's
fetch is joined only by requests that were told of the same lease: a purge, or the end of that process, makes a new one.

A purge revokes the fetches of a URL: they continue for their readers, but nobody joins them, and nothing of them is
stored (`StoreToken`). So does an unsafe request: what it has made is not missing any longer.

A fetch leaves `running` before its readers hear that it is over, so that a retry after a failure is not
collapsed into that failure. The lock is never held while anything waits for an origin, a cache or a client.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from shmchannel.deadline import Deadline
from webproxy.errors import TOO_MANY_WAIT, FetchAborted, HolderLost, NotFollowed, Overloaded, ProxyStops
from webproxy.fetch.job import Fetch
from webproxy.fetch.lease_book import LeaseBook, Standing
from webproxy.fetch.plan import Plan
from webproxy.fetch.spool import Spool, SpoolReader
from webproxy.fetch.spool_budget import NO_BUDGET, SpoolBudget
from webproxy.fetch.strand import Crew

log = logging.getLogger(__name__)

FILLED_MAX = 1024
"""How many recently filled keys are remembered: more than there can be requests between cache and origin."""
LIVING_MAX = 4096
"""How many fetches there may be at once: each has a spool, and waits for its turn with the origin or the cache."""


LINGERING_MAX = 64
LINGERING_BYTES_MAX = 65_536
"""The body of a failure that lingers."""


class Opened(NamedTuple):
    """A reader of a fetch, and whether the fetch was already running."""

    reader: SpoolReader
    collapsed: bool


class _Lingering(NamedTuple):
    fetch: Fetch
    reader: SpoolReader
    """It keeps the body."""
    until: float


class FetchTable:
    """The running fetches, and the threads for what waits for the cache."""

    def __init__(
        self,
        *,
        threads: int,
        spool_directory: str | None,
        budget: SpoolBudget = NO_BUDGET,
        failures_s: float = 0.0,
        is_full: Callable[[], bool] = lambda: False,
        process: str = "",
    ) -> None:
        """`is_full` tells whether no more requests may wait. `process` as LeaseBook()."""
        self.leases: LeaseBook[Fetch] = LeaseBook(process)
        self._is_full = is_full
        self._spool_directory = spool_directory
        self.budget = budget
        self._failures_s = failures_s
        self._lock = threading.Lock()
        self._is_empty = threading.Condition(self._lock)
        self._crew = Crew(threads)
        self._running: dict[bytes, Fetch] = {}
        self.living: set[Fetch] = set()
        """The fetches that are not over."""
        self._filled: OrderedDict[int, float] = OrderedDict()
        """By the hashes of keys, which may be long; for one that is taken for another the cache is asked once more."""
        self._lingering: OrderedDict[bytes, _Lingering] = OrderedDict()
        """In the order of their ends."""
        self._stopping = threading.Event()
        self.fetched_total = 0
        self.followed_total = 0
        self.collapsed_total = 0
        self.failed_total = 0

    def open(self, plan: Plan, missed_at: float = math.inf, *, collapse: bool = True) -> Opened | None:
        """A reader of the fetch that runs under the key of `plan`, unless `collapse` is off, or of a new one.

        `missed_at` is the time (monotonic) before the cache was asked: None if the cache was filled with the key since
        then, so that it should be asked again.

        Raises:
            Overloaded: too many requests wait, or fetches run, or there is no thread for any.
            ProxyStops: the daemon stops.
        """
        if self._is_full():
            raise Overloaded(TOO_MANY_WAIT)
        with self._lock:
            if self._stopping.is_set():
                raise ProxyStops
            if self._filled.get(hash(plan.key), -math.inf) >= missed_at:
                return None
            self._let_go(monotonic())
            running = self._joinable(plan) if collapse else None
            reader = None if running is None else running.spool.join()
            if running is not None and reader is not None:
                self.collapsed_total += 1
                fetch, is_new = running, False
            else:
                (fetch, reader), is_new = self._begin(plan), True
            tell = _nothing
            if plan.lease and not (plan.follows or fetch.plan.follows):
                tell = self.leases.hold(plan.lease, plan.key, fetch)
        tell()
        if log.isEnabledFor(logging.DEBUG):
            facts = {"url": fetch.plan.name} | ({"follows": plan.follows} if is_new else {"begun_by": fetch.begun_by})
            log.debug("fetch begins" if is_new else "fetch joined", extra=facts)
        if is_new:
            fetch.start()
        return Opened(reader, collapsed=plan.follows or not is_new)

    def _joinable(self, plan: Plan) -> Fetch | None:
        """The fetch that a request with this plan may share, if any."""
        lingering = self._lingering.get(plan.key)
        running = self._running.get(plan.key) or (None if lingering is None else lingering.fetch)
        if running is None or (running.plan.follows and plan.lease not in (0, running.plan.lease)):
            return None
        if running.tells_passing_failure and self._failures_s <= 0:  # it is for those alone who have waited for it
            return None
        return running

    def _begin(self, plan: Plan) -> tuple[Fetch, SpoolReader]:
        """A fetch that is yet to be started, and its first reader."""
        if len(self.living) >= LIVING_MAX:
            raise Overloaded(f"{LIVING_MAX} fetches run")
        if not self._crew.is_manned():
            raise Overloaded("no thread for fetches")
        spool = Spool(self._spool_directory, budget=self.budget)
        reader = spool.reader()
        fetch = Fetch(plan, spool, self._crew, self._stopping, self._note_end)
        self._running[plan.key] = fetch
        self.living.add(fetch)
        if plan.follows:
            self.followed_total += 1
        else:
            self.fetched_total += 1
        return fetch, reader

    def follow(self, number: int, key: bytes) -> SpoolReader | Standing:
        """A reader for another process, of the fetch that runs under this lease and this key."""
        found = self.leases.find(number, key)
        if isinstance(found, Standing):
            return found
        reader = None if found.token.revoked else found.spool.join()
        if reader is None:
            return Standing.GONE
        log.debug("fetch joined", extra={"url": found.plan.name, "begun_by": found.begun_by})
        return reader

    def _note_end(self, fetch: Fetch) -> None:
        key, failure = fetch.plan.key, fetch.failure
        with self._lock:
            if self._running.get(key) is fetch:
                del self._running[key]
            self.living.discard(fetch)
            if not self.living and self._stopping.is_set():  # otherwise nobody waits
                self._is_empty.notify_all()
            if fetch.stored:
                self._filled[hash(key)] = monotonic()
                self._filled.move_to_end(hash(key))
                if len(self._filled) > FILLED_MAX:
                    self._filled.popitem(last=False)
            self.failed_total += failure is not None and not isinstance(failure, NotFollowed)
            if fetch.tells_failure and failure is None:
                self._let_linger(fetch)
            if key not in self._lingering or self._lingering[key].fetch is not fetch:
                self.leases.drop(fetch, unshared=fetch.is_unshared)
        if failure is not None:
            facts = {"url": fetch.plan.name, "reason": str(failure)}
            if isinstance(failure, NotFollowed):
                log.debug("fetch not followed", extra=facts)
            elif isinstance(failure, FetchAborted) or self._stopping.is_set():
                log.info("fetch failed", extra=facts)
            elif isinstance(failure, HolderLost):
                log.warning("followed fetch broke off", extra=facts)
            else:
                log.warning("fetch failed", extra=facts)
        else:
            log.debug("fetch ends", extra={"url": fetch.plan.name, "stored": fetch.stored})

    def _let_linger(self, fetch: Fetch) -> None:
        key, now = fetch.plan.key, monotonic()
        self._let_go(now)
        if self._failures_s <= 0 or fetch.token.revoked or fetch.spool.written > LINGERING_BYTES_MAX:
            return
        reader = fetch.spool.join()
        if reader is None:
            return
        self._drop_lingering([key] if key in self._lingering else [])
        if len(self._lingering) == LINGERING_MAX:
            self._drop_lingering([next(iter(self._lingering))])
        self._lingering[key] = _Lingering(fetch, reader, now + self._failures_s)

    def _let_go(self, now: float) -> None:
        """Forget those whose moment is over."""
        self._drop_lingering([key for key, one in self._lingering.items() if one.until <= now])

    def _drop_lingering(self, keys: list[bytes]) -> None:
        for key in keys:
            lingering = self._lingering.pop(key)
            self.leases.drop(lingering.fetch)
            lingering.reader.close()

    def revoke(self, object_key: bytes, deadline: Deadline) -> bool:
        """Fetches under way for the key serve only the requests already waiting: they are neither joined nor stored.

        Returns once nothing of them is stored any longer; False if that was not certain in time.
        """
        with self._lock:
            revoked = [fetch for fetch in self.living if fetch.plan.object_key == object_key]
            for fetch in revoked:
                if self._running.get(fetch.plan.key) is fetch:
                    del self._running[fetch.plan.key]
            self._drop_lingering(
                [key for key, one in self._lingering.items() if one.fetch.plan.object_key == object_key]
            )
        in_time = [fetch.token.revoke(deadline.remaining()) for fetch in revoked]
        return all(in_time)

    def stop(self, seconds: float) -> None:
        """End every fetch, whose readers see it fail, and wait for the threads, for at most that long in total."""
        self._stopping.set()
        with self._lock:
            living = list(self.living)
            self._drop_lingering(list(self._lingering))
        for fetch in living:
            fetch.stop()
        give_up = monotonic() + seconds
        with self._lock:  # their ends are tasks of the threads
            self._is_empty.wait_for(lambda: not self.living, seconds)
        self._crew.stop(max(0.0, give_up - monotonic()))


def _nothing() -> None:
    """There is nobody to tell."""
