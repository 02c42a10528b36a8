"""Semaphore: an unnamed process-shared semaphore inside a segment; the only file that calls sem_*.

posix_ipc has no unnamed semaphores, so glibc is called: by ctypes, and for the two calls that each chunk needs by the C
type behind multiprocessing's semaphores, at a fifth of ctypes' cost (docs/decisions/0003). Calls that never block keep
the GIL (PyDLL: giving it up costs more than the call); only a real wait drops it (CDLL). Waits use CLOCK_MONOTONIC:
sem_timedwait(3) runs on the wall clock, which jumps.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Protocol

from shmchannel.deadline import PEER_CHECK_SECONDS
from shmchannel.errors import ChannelTimeout, PeerGone, ResourceError

_SEMLOCK_KIND_SEMAPHORE = 1  # 0 is a recursive lock
_SEMAPHORE_BYTES = 64  # a sem_t has 32
_CLOCK_MONOTONIC = 1


class PeerLiveness(Protocol):
    """Tells whether the other process of a channel is alive."""

    def alive(self) -> bool:
        """Whether the peer is alive; cheap, never blocks."""
        ...

    def describe(self) -> str:
        """The peer's description for error messages."""
        ...


_timespec = struct.Struct("@ll").pack  # bytes cost a third of a ctypes.Structure, and every wait creates one
_SECOND_NS = 1_000_000_000
SLICE_NS = int(PEER_CHECK_SECONDS * _SECOND_NS)

_keeps_gil = ctypes.PyDLL(None, use_errno=True)
# On an intact semaphore post, try and wait fail only where another try is right, so errno is not read for them.
_brief = ctypes.PyDLL(None)
_drops_gil = ctypes.CDLL(None)
try:
    _sem_clockwait = _drops_gil.sem_clockwait  # its arguments are C values: see Semaphore
except AttributeError:  # pragma: no cover - old C library
    raise ImportError("shmchannel needs sem_clockwait(3): glibc 2.30 or later") from None

_sem_init = _keeps_gil.sem_init
_sem_post = _brief.sem_post
_sem_trywait = _brief.sem_trywait
_sem_getvalue = _keeps_gil.sem_getvalue
_sem_init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
_sem_post.argtypes = _sem_trywait.argtypes = [ctypes.c_void_p]
_sem_getvalue.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]

Calls = tuple[Callable[[], object], Callable[[], bool]]


def calls_by_ctypes(address: int) -> Calls:
    """sem_post(3), and whether sem_trywait(3) took one, on the semaphore at this address."""
    return partial(_sem_post, address), lambda: _sem_trywait(address) == 0


def calls_by_semlock(address: int) -> Calls:
    """The same by the type behind multiprocessing's semaphores, told to use one opened elsewhere.

    At its end it calls sem_close(3), which knows no semaphore at this address and does nothing.
    """
    lock_type = importlib.import_module("_multiprocessing").SemLock
    lock = lock_type._rebuild(address, _SEMLOCK_KIND_SEMAPHORE, lock_type.SEM_VALUE_MAX, None)
    return lock.release, partial(lock.acquire, False)


def best_calls() -> Callable[[int], Calls]:
    """By SemLock if it exists and behaves as required: its interface is not public."""
    memory = ctypes.create_string_buffer(_SEMAPHORE_BYTES)
    address = ctypes.addressof(memory)
    _sem_init(address, 0, 0)
    try:
        post, try_take = calls_by_semlock(address)
        seen = [try_take()]
        post()
        seen += [try_take(), try_take()]
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return calls_by_ctypes
    return calls_by_semlock if seen == [False, True, False] else calls_by_ctypes


_calls = best_calls()


def next_look() -> bytes:
    """The time at which a wait that begins now should check the peer; usable for several waits, until it has passed."""
    until_ns = monotonic_ns() + SLICE_NS
    return _timespec(until_ns // _SECOND_NS, until_ns % _SECOND_NS)


def value_in(copy: bytes) -> int:
    """The count in a copy of a sem_t; for monitors."""
    buffer = ctypes.create_string_buffer(copy, _SEMAPHORE_BYTES)  # which lives as long as its address is used
    return _value_at(ctypes.addressof(buffer))


def _value_at(address: int) -> int:
    count = ctypes.c_int()
    _sem_getvalue(address, ctypes.byref(count))
    return count.value


class Semaphore:
    """A sem_t at `address`; the memory's owner keeps it mapped while this object lives.

    Three calls are sem_post(3), sem_trywait(3) and sem_clockwait(3) themselves, without a Python frame in between:

    * post() adds one;
    * try_take() takes one if there is one, and tells whether it did;
    * wait_until(moment) waits for one until a moment of next_look(); 0 if it took one. Any other result means nothing:
      continue with wait().
    """

    __slots__ = ("_address", "name", "post", "try_take", "wait_until")

    def __init__(self, address: int, name: str) -> None:
        self.name = name
        self._address = address
        self.post, self.try_take = _calls(address)
        # A prepared reference avoids a conversion for each call, which costs as much as the call.
        pointer = ctypes.byref(ctypes.c_char.from_address(address))
        self.wait_until: Callable[[bytes], int] = partial(_sem_clockwait, pointer, _CLOCK_MONOTONIC)

    def initialise(self, value: int) -> None:
        """Owner, once, before the segment is published. A live semaphore must never be reinitialised."""
        if _sem_init(self._address, 1, value) != 0:
            raise ResourceError(f"sem_init {self.name}", ctypes.get_errno())

    @property
    def value(self) -> int:
        """The current count; for monitors and tests."""
        return _value_at(self._address)

    def take(self, limit_s: float, peer: PeerLiveness) -> None:
        """Take one, waiting up to `limit_s` seconds in slices, between which the peer's guard is checked.

        Raises:
            ChannelTimeout: nothing within the limit.
            PeerGone: the peer ended without posting.
        """
        if not self.try_take():
            self.wait(limit_s, peer)

    def wait(self, limit_s: float, peer: PeerLiveness) -> None:
        """As take(), for callers that have tried already."""
        now = monotonic_ns()
        expires_ns = now + int(limit_s * _SECOND_NS)
        while True:
            until_ns = min(expires_ns, now + SLICE_NS)
            if self.wait_until(_timespec(until_ns // _SECOND_NS, until_ns % _SECOND_NS)) == 0:
                return
            if not peer.alive():
                if self.try_take():  # posted just before it died: a complete hand-over is valid
                    return
                raise PeerGone(f"{self.name}: {peer.describe()} has ended")
            now = monotonic_ns()
            if now >= expires_ns:
                raise ChannelTimeout(f"{self.name}: nothing from {peer.describe()} within {limit_s:.1f} s")
