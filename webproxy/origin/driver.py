"""OriginDriver: all transfers with origins, driven by one thread through libcurl's multi interface.

Theory of operation
===================

**States** of a transfer:

    submitted ──▶ at the gate ──▶ running ──▶ ended
                      ▲            │ │ ▲
                      └────────────┘ │ │ resume()
        a redirect to another origin ▼ │
                                  paused: the sink has no room, or the body no data

A transfer is one request with the redirects that follow it; each hop is a request to libcurl, on a handle lent for it.
Before a hop begins the gate (gate.py) grants it a connection of its origin's share, or lets it wait for one in line.

**Events** arrive in the thread's epoll: a socket that libcurl watches, libcurl's timer, or the wake-up descriptor, when
another thread has submitted, resumed or cancelled a transfer, or the gate has settled the matter of one. libcurl then
calls the sink. Four times a second the thread looks for transfers that have been silent for too long. A paused transfer
is never silent: it waits for us. Silence ends a transfer for good: whatever takes the origin too long once would only
burden it more if it were asked for again.

**Invariants.** Only the thread touches libcurl; close() takes its place once it has ended. A sink is called by the
thread alone, never after `ended`, which is called exactly once unless the transfer is abandoned; it must not block,
because everything else waits for it: a sink without room returns False from write(), and the same bytes come again
after resume(). resume() before the pause is not lost. Connections belong to the multi handle, so that a transfer can
use any idle one; each carries one transfer at a time, because libcurl would have to keep what arrives for a paused
transfer that shares its connection.

**Why not otherwise.** A thread for each transfer is what this replaces: as many silent origins as there were threads
stopped all others. libcurl's perform() looks at every transfer each time; socket_action() looks at those that moved.
Long because all of this is one thread's, and what has to be right is the order of its calls.

Sources: curl_multi_socket_action(3), curl_easy_pause(3), epoll(7).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, time
from typing import Final, TypeAlias

import pycurl

from shmchannel.daemonkit.logs import about, subject
from webproxy.errors import OriginError, OriginRefused, ProxyStops
from webproxy.origin.addresses import may_redirect, origin_of
from webproxy.origin.gate import OriginGate, Passage
from webproxy.origin.handle import Handle
from webproxy.origin.health import Failure
from webproxy.origin.hop import Hop, Sink
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.origin.shares import ShareSettings
from webproxy.telemetry.origin_counts import OriginCounts
from webproxy.transport import sockets

log = logging.getLogger(__name__)

_TICK_SECONDS: Final = 0.25
_HANDLES_KEPT_MAX: Final = 64
_EVENTS_MAX: Final = 256
FOLLOWED_MAX: Final = 64
"""How many fetches of other processes are followed at once; beyond that this one asks the origin."""
_EPOLL_OF = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
    pycurl.POLL_NONE: 0,
}


class Transfer:
    """One request to an origin; any thread may call the methods of it, none of which blocks.

    `url`, `gate`, `passage`, `hop` and `handle` are the driver's.
    """

    def __init__(self, driver: OriginDriver, request: OriginRequest, sink: Sink, limits: OriginLimits) -> None:
        self.request = request
        self.sink: Sink | None = sink
        """None once it is over: nothing more is said, and a sink that refers to this object is no cycle."""
        self.limits = limits
        self.redirects_left = limits.redirects
        self.asked_at = 0.0
        """When the request was sent (seconds since the epoch)."""
        self.url = request.url
        """Of the hop that is under way, or about to begin."""
        self.gate = driver.gate_of(request)
        self.passage: Passage[Transfer] | None = None
        self.hop: Hop | None = None
        self.handle: Handle | None = None
        self.subject = subject()
        """The request for which it was made, which its log lines are about."""
        self._driver = driver

    def begin(self, after_s: float = 0.0) -> None:
        """Send the request, at once or later. The sink hears of everything else, failures included."""
        self._driver.begin(self, after_s)

    def resume(self) -> None:
        """The sink has room again, or the body of the request has more bytes."""
        self._driver.call(partial(self._driver.resume, self))

    def cancel(self, error: OriginError) -> None:
        """End it soon with this error, unless it ends before."""
        if self.sink is not None:
            self._driver.call(partial(self._driver.cancel, self, error))

    def abandon(self) -> None:
        """End it soon without a word to the sink, which may still be called until then.

        A sink that must know when it is called for the last time needs cancel().
        """
        if self.sink is not None:
            self._driver.call(partial(self._driver.abandon, self))


_Call: TypeAlias = Callable[[], None]
_SHARES: Final = ShareSettings()


class OriginDriver:
    """Owns the thread and the connections to origins. start() it, and close() it at the end."""

    def __init__(
        self,
        settings: ShareSettings = _SHARES,
        counts: OriginCounts | None = None,
        *,
        followed_max: int = FOLLOWED_MAX,
    ) -> None:
        """`settings` bound its connections to origins, those that are kept idle included.

        `followed_max` bounds those to processes whose fetches are followed.
        """
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._calls: deque[_Call] = deque()
        self._active: dict[pycurl.Curl, Transfer] = {}
        self._begun: set[Transfer] = set()
        """Those that are not over, the active ones included."""
        self._receiving: list[Transfer] = []
        """Those for which something has arrived since the last delivery."""
        self._later: dict[Transfer, float] = {}
        self._next_due = math.inf
        """When the first of those begins."""
        self._is_acting = False
        self._afterwards: list[_Call] = []
        self._gate: OriginGate[Transfer] = OriginGate(settings, self._pass, self._turn_away, counts)
        followed = ShareSettings(connections_max=followed_max, origin_connections_max=followed_max, line_max=0)
        self._holders: OriginGate[Transfer] = OriginGate(followed, self._pass, self._turn_away)
        """The gate to other processes whose fetches are followed: they are no origins, and take no share of theirs."""
        self._handles: list[Handle] = []
        self._timer_at: float | None = None
        self.turns = 0
        """How often the thread has turned: it does so four times a second at least, unless something holds it up."""
        self._stopping = False
        self._is_closed = False
        self._multi = pycurl.CurlMulti()
        self._epoll_fd = self._epoll.fileno()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_PIPELINING, 0)
        # Idle connections count: one of them makes way for a new one that cannot use it.
        self._multi.setopt(pycurl.M_MAXCONNECTS, settings.connections_max)
        self._connections_max = settings.connections_max
        self._followed = 0
        self._follow(0)
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, settings.origin_connections_max)
        self._thread = threading.Thread(target=self._run, name="origins", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def transfer(self, request: OriginRequest, sink: Sink, limits: OriginLimits) -> Transfer:
        """A transfer that is yet to begin."""
        return Transfer(self, request, sink, limits)

    def begin(self, transfer: Transfer, after_s: float) -> None:
        """See Transfer."""
        self.call(partial(self._begin, transfer, monotonic() + after_s if after_s > 0 else None))

    def call(self, function: _Call) -> None:
        """Have the thread call a function soon; from any thread. After close() nothing happens."""
        self._calls.append(function)
        if not self._is_closed:
            sockets.raise_event(self._wake_fd)

    def afterwards(self, function: _Call) -> None:
        """Call a function at once or, in the thread, when all that has arrived together has been passed on.

        To wake whoever waits for the head of a short response: it finds the body there too. The function must not
        raise.
        """
        if self._is_acting and threading.get_ident() == self._thread.ident:
            self._afterwards.append(function)
        else:
            function()

    def close(self) -> None:
        """End the thread, then every transfer, also those that are yet to begin; blocks until the thread has ended.

        May be called twice.
        """
        if self._is_closed:
            return
        self._stopping = True
        sockets.raise_event(self._wake_fd)
        if self._thread.ident is not None:
            self._thread.join()
        self._do_calls()  # this thread has taken the other one's place
        for transfer in tuple(self._begun):
            self.cancel(transfer, ProxyStops())
        self._is_closed = True
        self._multi.close()
        for handle in self._handles:
            handle.close()
        self._epoll.close()
        os.close(self._wake_fd)

    # -- the thread ----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        next_tick = monotonic() + _TICK_SECONDS
        while not self._stopping:
            try:
                self._turn(next_tick)
                if monotonic() >= next_tick:
                    next_tick = monotonic() + _TICK_SECONDS
                    self._tick()
            except Exception:
                log.exception("origin driver error")

    def _turn(self, next_tick: float) -> None:
        self.turns += 1
        wake_at = min(next_tick, self._next_due)
        if self._timer_at is not None:
            wake_at = min(wake_at, self._timer_at)
        if (expiry := self._gate.next_expiry()) is not None:
            wake_at = min(wake_at, expiry)
        for fd, mask in self._epoll.poll(max(0.0, wake_at - monotonic()), _EVENTS_MAX):
            if fd == self._wake_fd:
                sockets.lower_event(fd)
            else:
                self._act(fd, _curl_events(mask))
        self._do_calls()
        if monotonic() >= self._next_due:
            self._begin_due()
        if expiry is not None:
            self._gate.expire()
        if self._timer_at is not None and monotonic() >= self._timer_at:
            self._timer_at = None
            self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, fd: int, events: int) -> None:
        self._is_acting = True
        try:
            self._multi.socket_action(fd, events)
            self._deliver()
            self._take_finished()
        finally:
            self._is_acting = False
            while self._afterwards:
                self._afterwards.pop(0)()

    def _deliver(self) -> None:
        """Pass on what has arrived."""
        while self._receiving:
            transfer = self._receiving.pop()
            if transfer.hop is None or transfer.handle is None or transfer.hop.is_full:
                continue
            if not self._has_delivered(transfer):
                with contextlib.suppress(pycurl.error):  # libcurl has all of it already
                    transfer.handle.curl.pause(pycurl.PAUSE_RECV)

    def _has_delivered(self, transfer: Transfer) -> bool:
        """Whether the sink has taken everything, or does not want it any longer."""
        assert transfer.hop is not None
        try:
            return transfer.hop.deliver()
        except Exception as failure:  # noqa: BLE001 - told to the sink, whose it is
            self.cancel(transfer, failure)
            return True

    def _do_calls(self) -> None:
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:  # the others' calls are still due
                log.exception("origin driver error")

    def _begin(self, transfer: Transfer, due: float | None = None) -> None:
        if transfer.sink is None:
            return
        self._begun.add(transfer)
        if due is not None:
            self._later[transfer] = due
            self._next_due = min(self._next_due, due)
            return
        self._enter_gate(transfer)

    def _begin_due(self) -> None:
        now = monotonic()
        for transfer in [transfer for transfer, due in self._later.items() if due <= now]:
            del self._later[transfer]
            self._begin(transfer)
        self._next_due = min(self._later.values(), default=math.inf)

    def _follow(self, more: int) -> None:
        """So many more followed fetches: their connections come on top of those to origins, whose idle ones count."""
        self._followed += more
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._connections_max + self._followed)

    def gate_of(self, request: OriginRequest) -> OriginGate[Transfer]:
        """The gate that a request has to pass."""
        return self._holders if request.holder else self._gate

    def _enter_gate(self, transfer: Transfer) -> None:
        """The hop to `url` begins now, or when there is a connection for it."""
        try:
            transfer.passage = transfer.gate.enter(transfer, origin_of(transfer.url), transfer.limits.health)
        except OriginError as error:
            self._tell(transfer, error)
            return
        if transfer.passage.is_granted:
            self._begin_hop(transfer)
            return
        with about(transfer.subject):
            log.debug("waits for a connection", extra={"url": transfer.url})

    def _pass(self, transfer: Transfer) -> None:
        """Its turn has come. The gate is in the middle of something: soon."""
        self.call(partial(self._begin_hop, transfer))

    def _turn_away(self, transfer: Transfer, error: OriginError) -> None:
        self.call(partial(self.cancel, transfer, error))

    def _begin_hop(self, transfer: Transfer, *, is_fresh: bool = False) -> None:
        """With the connection that is granted; `is_fresh` after a try that was unlucky, and as a part of it."""
        passage = transfer.passage
        if transfer.sink is None or passage is None:
            return
        on_head = partial(self._note_head, transfer, passage)
        on_body = partial(self._receiving.append, transfer)
        request, sink, limits = transfer.request, transfer.sink, transfer.limits
        request_id = transfer.subject
        hop = Hop(transfer.url, request, sink, limits, on_head, on_body, is_fresh=is_fresh, subject=request_id)
        handle = self._handles.pop() if self._handles else Handle()
        try:
            hop.configure(handle)
            if not is_fresh:
                transfer.gate.admit(passage)
        except Exception as error:  # noqa: BLE001 - told to the sink; libcurl and pycurl refuse some requests too
            hop.forget(handle)
            self._keep(handle)
            self._tell(transfer, error)
            return
        if transfer.redirects_left == transfer.limits.redirects:
            transfer.asked_at = time()
        transfer.hop, transfer.handle = hop, handle
        self._active[handle.curl] = transfer
        if log.isEnabledFor(logging.DEBUG):
            with about(request_id):
                log.debug("origin asked", extra={"url": transfer.url, "method": request.method})
        if transfer.request.holder:
            self._follow(1)
        self._multi.add_handle(handle.curl)

    def _note_head(self, transfer: Transfer, passage: Passage[Transfer], status: int) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("origin answered", extra={"url": transfer.url, "status": status})
        transfer.gate.answered(passage, status)

    def resume(self, transfer: Transfer) -> None:
        """For the thread."""
        hop = transfer.hop
        if hop is None or not hop.unpause() or not self._has_delivered(transfer) or transfer.hop is not hop:
            return
        if hop.verdict is not None:
            self._end_hop(transfer, *hop.verdict)
            return
        assert transfer.handle is not None
        try:
            transfer.handle.curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:  # of a callback that was called at once
            self._end_hop(transfer, error.args)
        self._deliver()
        self._take_finished()

    def cancel(self, transfer: Transfer, error: Exception) -> None:
        """For the thread."""
        self._drop_hop(transfer)
        self._tell(transfer, error)

    def abandon(self, transfer: Transfer) -> None:
        """For the thread."""
        self._drop_hop(transfer)
        self._end(transfer)

    def _drop_hop(self, transfer: Transfer) -> None:
        self._later.pop(transfer, None)
        if transfer.hop is not None:
            transfer.hop.forget(self._take_back(transfer))

    def _tick(self) -> None:
        self._gate.report()
        now = monotonic()
        for transfer in tuple(self._begun):
            limits = transfer.limits
            silent_s = 0.0 if transfer.hop is None else transfer.hop.silent_s(now)
            is_given_up = silent_s > limits.stall_s
            if transfer.passage is not None and (is_given_up or silent_s > limits.health.silence_s):
                with about(transfer.subject):
                    transfer.gate.failed(transfer.passage, Failure.SILENCE)
            if is_given_up and transfer.hop is not None:
                transfer.hop.give_up()
                self._end_hop(transfer, (pycurl.E_ABORTED_BY_CALLBACK, "silent"))
            elif transfer.sink is not None:
                try:
                    with about(transfer.subject):
                        transfer.sink.tick()
                except Exception as error:  # noqa: BLE001 - told to the sink, which has raised it
                    self.cancel(transfer, error)

    def _take_finished(self) -> None:
        """Ask libcurl which hops have ended."""
        left = 1
        while left:
            left, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._end_hop(self._active[handle], None)
            for handle, code, message in failed:
                self._end_hop(self._active[handle], (code, message))

    def _end_hop(self, transfer: Transfer, error: tuple[int, str] | None) -> None:
        hop = transfer.hop
        assert hop is not None
        assert transfer.handle is not None
        if hop.holds_body:
            hop.verdict = (error,)
            return
        if error is not None and hop.was_unlucky(transfer.handle, error):
            hop.forget(self._take_back(transfer))
            self._begin_hop(transfer, is_fresh=True)
            return
        passage = transfer.passage
        assert passage is not None
        try:
            try:
                target = hop.end(self._take_back(transfer), error)
            finally:
                if hop.failure is not None:
                    with about(transfer.subject):
                        transfer.gate.failed(passage, hop.failure)
            if target is None:
                self._tell(transfer, hop.outcome)
                return
            if not may_redirect(hop.url, target):
                raise OriginRefused(
                    f"{hop.url} redirects to {target!r}: only to plain http and https, never https to http"
                )
            if not transfer.redirects_left:
                raise OriginRefused(f"{transfer.request.url} redirects more than {transfer.limits.redirects} times")
        except Exception as failure:  # noqa: BLE001 - told to the sink, whoever raised it
            self._tell(transfer, failure)
            return
        transfer.redirects_left -= 1
        transfer.url = target
        if origin_of(target) == passage.origin:
            self._begin_hop(transfer)
            return
        self._leave_gate(transfer)
        self._enter_gate(transfer)

    def _take_back(self, transfer: Transfer) -> Handle:
        """The handle of a hop that is over, for the next one."""
        handle = transfer.handle
        assert handle is not None
        self._multi.remove_handle(handle.curl)
        if transfer.request.holder:
            self._follow(-1)
        del self._active[handle.curl]
        transfer.hop = transfer.handle = None
        self._keep(handle)
        return handle

    def _keep(self, handle: Handle) -> None:
        if len(self._handles) < _HANDLES_KEPT_MAX:
            self._handles.append(handle)
        else:
            handle.close()

    def _leave_gate(self, transfer: Transfer) -> None:
        passage, transfer.passage = transfer.passage, None
        if passage is not None:
            transfer.gate.leave(passage)

    def _end(self, transfer: Transfer) -> Sink | None:
        """Returns the sink, unless it is over already."""
        sink, transfer.sink = transfer.sink, None
        self._begun.discard(transfer)
        self._leave_gate(transfer)
        return sink

    def _tell(self, transfer: Transfer, outcome: OriginResponse | Exception) -> None:
        sink = self._end(transfer)
        if sink is None:
            return
        with about(transfer.subject):
            if isinstance(outcome, Exception):
                log.debug("origin given up", extra={"url": transfer.url, "reason": str(outcome)})
            try:
                sink.ended(outcome)
            except Exception:
                log.exception("end of a transfer not handled", extra={"url": transfer.request.url})

    # -- called by libcurl, from within the thread's calls -------------------------------------------------------
    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            sockets.unwatch(self._epoll_fd, fd)  # which libcurl may have closed
            return
        sockets.watch(self._epoll_fd, fd, _EPOLL_OF[what])

    def _set_timer(self, after_ms: int) -> None:
        self._timer_at = None if after_ms < 0 else monotonic() + after_ms / 1000


def _curl_events(mask: int) -> int:
    events = 0
    if mask & (select.EPOLLIN | select.EPOLLHUP):
        events |= pycurl.CSELECT_IN
    if mask & select.EPOLLOUT:
        events |= pycurl.CSELECT_OUT
    if mask & select.EPOLLERR:
        events |= pycurl.CSELECT_ERR
    return events
