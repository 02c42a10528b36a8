"""UntoldPurges: tells the cache the purges that it missed, as soon as it answers, in a thread that lives until then.

Which purges, and what may not be used meanwhile, is decided by PendingPurges. The hot table is not used at all while
something is pending: it is read without a look at the key on the path of every hit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from shmchannel.deadline import Deadline
from shmchannel.errors import NameMissing, PeerGone, ShmChannelError
from shmchannel.objects.client import ChannelClient
from webproxy.store.pending_purges import Obstacle, Pending, PendingPurges, Purge
from webproxy.store.siblings import TELL_SECONDS, Missed, Told, nobody

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""How often it looks for a cache that is gone, and for a purge that is due."""
PAUSE_SECONDS = 1.0
"""How long after a ping without an answer it pings again."""
PURGE_SECONDS = 30.0
"""How long a purge may take that no request waits for: one of everything is long in a large store."""


class UntoldPurges:
    """Thread-safe. close() it before the client."""

    def __init__(
        self,
        client: ChannelClient,
        ping_s: float,
        on_answer: Callable[[], None],
        tell_siblings: Callable[[Missed], Told] = nobody,
    ) -> None:
        """`ping_s` is the limit of a ping; `on_answer` is called when the cache has been told a purge.

        `tell_siblings` as Siblings.tell().
        """
        self._tell_siblings = tell_siblings
        self._client = client
        self._ping_s = ping_s
        self._on_answer = on_answer
        self._pending = PendingPurges()
        self._lock = threading.Lock()
        """Also held while the hot table is put out of use and into use again."""
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def withholds(self, key: bytes) -> bool:
        """Whether the cache's objects under this key may not be used; takes no lock."""
        return bool(self._pending) and self._pending.withholds(key)

    def add(self, purge: Purge, obstacle: Obstacle | None = None) -> None:
        """Withhold the objects that a purge concerns from now on, until the cache has been told it.

        It is not told before the `obstacle`, if there is one, is out of the way. Returns once other processes withhold
        them too, or have not answered in time.
        """
        self.withhold(purge, obstacle)
        told = self._tell_siblings(Missed(self._client.queue_name, purge))
        if told.silent:
            log.warning("purge not known to all", extra={"queue": self._client.queue_name, "processes": told.silent})

    def withhold(self, purge: Purge, obstacle: Obstacle | None = None) -> None:
        """As add(), of a purge of which another process has told; never waits."""
        with self._lock:
            is_first = not self._pending
            overflows = self._pending.add(purge, monotonic(), obstacle)
            if is_first:
                self._client.use_hot_table(is_wanted=False)
            self._begin_to_tell()
        facts = {"queue": self._client.queue_name}
        if is_first:
            log.warning("purges wait for the cache", extra=facts)
        if overflows:
            log.warning("too many purges wait for the cache", extra=facts)

    def look(self) -> None:
        """Begin to tell, if the system refused a thread before; to be called about once a second."""
        if self._pending:
            with self._lock:
                if self._pending:
                    self._begin_to_tell()

    def close(self) -> None:
        """End the thread, within a second; what was not told by now is left to other processes, or lost."""
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join()
        if self._pending:
            self._leave_to_others()

    def _leave_to_others(self) -> None:
        """Those that have started since do not know; without any other process they are lost."""
        deadline, left, lost = Deadline.after(TELL_SECONDS), 0, 0
        for pending in self._pending.due(inf):
            is_known = (
                not deadline.expired and self._tell_siblings(Missed(self._client.queue_name, pending.purge)).knowing
            )
            left, lost = (left + 1, lost) if is_known else (left, lost + 1)
        if left:
            log.info("purges left to others", extra={"queue": self._client.queue_name, "purges": left})
        if lost:
            log.warning("purges lost", extra={"queue": self._client.queue_name, "purges": lost})

    def _begin_to_tell(self) -> None:
        """The lock is held."""
        if self._closing.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._tell_all, name="cache-purges", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system refused another thread
            self._thread = None

    def _tell_all(self) -> None:
        """Tell what is pending, until nothing is."""
        while True:
            is_answering = self._tell_due()
            with self._lock:
                if not self._pending:
                    self._client.use_hot_table(is_wanted=True)
                    self._thread = None
                    break
            if self._closing.wait(LOOK_SECONDS if is_answering else PAUSE_SECONDS):
                return
        log.info("purges told to the cache", extra={"queue": self._client.queue_name})

    def _tell_due(self) -> bool:
        """Tell the cache what is due; False if it does not answer."""
        with self._lock:
            due = self._pending.due(monotonic())
        due = [one for one in due if one.is_possible()]
        try:
            if due:
                self._client.ping(Deadline.after(self._ping_s))
            for one in due:
                self._tell(one)
        except (NameMissing, PeerGone):
            return True  # it costs nothing to look for it often
        except ShmChannelError:
            return False
        return True

    def _tell(self, pending: Pending) -> None:
        key, prefix, below, invalidate = pending.purge
        self._client.purge(
            key,
            Deadline.after(PURGE_SECONDS),
            prefix=prefix,
            below=below,
            invalidate=invalidate,
            is_wanted=lambda: not self._closing.is_set(),
        )
        self._on_answer()
        with self._lock:
            self._pending.told(pending, monotonic())
