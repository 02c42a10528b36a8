"""System calls on connected sockets, by descriptor. Calls that cannot block keep the GIL.

A call that releases the GIL while seven other workers wait for it loses it: two context switches for a call of five
microseconds. Measured with 8 clients and 8 KiB objects, these cost more than the rest of a request
(docs/decisions/0003). Accepting, receiving, sending a small reply, shutting down and closing are therefore non-blocking
and called through PyDLL, which keeps the GIL; only a send that copies much, and a wait, release it (CDLL).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import select
import socket
import struct
import sys
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from webproxy.errors import ClientGone

SMALL_BYTES = 16_384
"""Up to this size copying is cheaper than handing over the GIL."""


class _Message(ctypes.Structure):
    """A struct msghdr that points to its own two struct iovec (sendmsg(2)): a header and a body."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("header", ctypes.c_char_p),
        ("header_bytes", ctypes.c_size_t),
        ("body", ctypes.c_void_p),
        ("body_bytes", ctypes.c_size_t),
    )


class _PollFd(ctypes.Structure):
    """A struct pollfd (poll(2))."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("happened", ctypes.c_short))


class _EpollEvent(ctypes.Structure):
    """A struct epoll_event (epoll_ctl(2)), which the kernel packs on x86-64 only."""

    _pack_ = 1 if os.uname().machine == "x86_64" else 8
    _fields_ = (("events", ctypes.c_uint32), ("fd", ctypes.c_int32), ("unused", ctypes.c_int32))


_keeps_gil = ctypes.PyDLL(None, use_errno=True)
_drops_gil = ctypes.CDLL(None, use_errno=True)
# Without argument types: their conversion costs as much as the kernel's part of a call (docs/tuning.md). What a call is
# given is an int of C (a descriptor, flags, a count that is small by itself), bytes, or a prepared reference.
_accept4, _recv, _shutdown, _close = _keeps_gil.accept4, _keeps_gil.recv, _keeps_gil.shutdown, _keeps_gil.close
_recv_waiting, _poll_waiting = _drops_gil.recv, _drops_gil.poll
_connect, _setsockopt, _getpeername = _keeps_gil.connect, _keeps_gil.setsockopt, _keeps_gil.getpeername
_epoll_ctl, _epoll_wait, _poll = _keeps_gil.epoll_ctl, _keeps_gil.epoll_wait, _keeps_gil.poll
_send, _sendmsg, _write, _read = _keeps_gil.send, _keeps_gil.sendmsg, _keeps_gil.write, _keeps_gil.read
for _call in (_recv, _recv_waiting, _send, _sendmsg, _write, _read):
    _call.restype = ctypes.c_ssize_t
# For chunks: without errno too, which saves as much as a tenth of a call.
_send_small_brief, _send_large_brief = ctypes.PyDLL(None).send, ctypes.CDLL(None).send
_send_small_brief.restype = _send_large_brief.restype = ctypes.c_ssize_t
# For memory at an address, and for counts of any size.
_send_small_at, _send_large_at = _keeps_gil["send"], _drops_gil["send"]
for _call in (_send_small_at, _send_large_at):
    _call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _call.restype = ctypes.c_ssize_t

STAY_MS = 20
"""How long a worker waits for more data on a connection before it idles without a worker."""
_RECEIVE_BYTES = 8192
DISCARDED_BYTES_MAX = 16 * _RECEIVE_BYTES
"""So much is thrown away at a time of what a client sends that is not listened to any more."""
_NAME_BYTES = 28
"""Of a struct sockaddr_in6."""
_NO_ADDRESS = struct.pack("@H14x", socket.AF_UNSPEC)  # a struct sockaddr
_NO_LIMIT = struct.pack("@i", 0)
_CREDENTIALS = struct.Struct("@iII")
"""struct ucred: pid, uid, gid."""
_C_INT_MAX = (1 << 31) - 1
_AGAIN = (errno.EAGAIN, errno.EINTR)
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_FLAGS_MORE = _FLAGS | int(socket.MSG_MORE)
_DONTWAIT = int(socket.MSG_DONTWAIT)
_CLOEXEC = int(socket.SOCK_CLOEXEC)


class _OfThread(threading.local):
    """What calls of one thread point the kernel to, with the references that ctypes is given."""

    def __init__(self) -> None:
        self.buffer: Any = ctypes.create_string_buffer(_RECEIVE_BYTES)
        self.event = _EpollEvent()
        self.event_reference = ctypes.byref(self.event)
        self.watched = _PollFd()
        self.watched_reference = ctypes.byref(self.watched)
        self.name: Any = ctypes.create_string_buffer(_NAME_BYTES)
        self.name_bytes = ctypes.c_uint32()
        self.name_bytes_reference = ctypes.byref(self.name_bytes)
        self.message = _Message()
        self.message_reference = ctypes.byref(self.message)
        self.message.parts = ctypes.addressof(self.message) + _Message.header.offset
        self.message.part_count = 2


_local = _OfThread()


def accept(listener_fd: int) -> int | None:
    """The descriptor of a connection waiting at a non-blocking listener; None if there is none.

    The connection is blocking and inherits the listener's options.

    Raises:
        OSError: out of descriptors, or the connection is already gone.
    """
    fd: int = _accept4(listener_fd, None, None, _CLOEXEC)
    if fd >= 0:
        return fd
    code = ctypes.get_errno()
    if code in _AGAIN:
        return None
    raise OSError(code, os.strerror(code))


def backlog(listener: socket.socket) -> int:
    """How many connections wait to be accepted: tcpi_unacked of a listening socket counts them (tcp(7))."""
    return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:28], "little")


def receive(fd: int, *, waits: bool = False) -> bytes | None:
    """The bytes that have arrived, at most 8 KiB; b"" at the client's end of stream, None if there are none.

    With `waits` it waits up to the socket's receive timeout for the first of them, without the GIL.

    Raises:
        ClientGone: the connection is broken.
    """
    buffer = _local.buffer
    count: int = _recv_waiting(fd, buffer, _RECEIVE_BYTES, 0) if waits else _recv(fd, buffer, _RECEIVE_BYTES, _DONTWAIT)
    if count >= 0:
        data: bytes = buffer[:count]  # a slice takes a tenth of the time of ctypes.string_at()
        return data
    code = ctypes.get_errno()
    if code in _AGAIN:
        return None
    raise ClientGone(os.strerror(code))


def send(fd: int, data: bytes) -> int:
    """Send a few bytes without waiting; returns how many the kernel accepted.

    Raises:
        ClientGone: the connection is closed or broken.
    """
    return _sent(_send(fd, data, len(data), _FLAGS))


def send_memory(fd: int, address: int, count: int, more: bool = False) -> int:
    """Send `count` bytes of memory without waiting; large sends release the GIL.

    With `more` a small count may be held back to share a packet with the data that follows at once. The memory must
    stay mapped until the call returns. Returns how many bytes the kernel accepted.

    Raises:
        ClientGone: the connection is closed or broken.
    """
    sent: int
    if count > SMALL_BYTES:  # it fills packets by itself: MSG_MORE would only delay them, and costs a quarter here
        sent = _send_large_at(fd, address, count, _FLAGS)
    else:
        sent = _send_small_at(fd, address, count, _FLAGS_MORE if more else _FLAGS)
    return sent if sent >= 0 else _sent(sent)


def send_chunk(fd: int, pointer: object, count: int, more: bool) -> int:
    """As send_memory(), from the result of ctypes.byref()."""
    sent: int
    if count > SMALL_BYTES:
        send_large = _send_large_brief if count <= _C_INT_MAX else _send_large_at  # an int of C, without its conversion
        sent = send_large(fd, pointer, count, _FLAGS)
    else:
        sent = _send_small_brief(fd, pointer, count, _FLAGS_MORE if more else _FLAGS)
    # A call that failed is repeated by one that reports why.
    return sent if sent >= 0 else _sent(_send_large_at(fd, pointer, count, _FLAGS))


def send_header(fd: int, header: bytes) -> int:
    """Send a header that content follows at once, so that both share a packet; otherwise as send()."""
    sent: int = _send(fd, header, len(header), _FLAGS_MORE)
    return sent if sent >= 0 else _sent(sent)


def send_with_header(fd: int, header: bytes, address: int, count: int) -> int:
    """Send a header and a small body (up to SMALL_BYTES) from memory in one call that does not wait.

    Returns how many bytes of both together the kernel accepted. Raises as send().
    """
    message = _local.message
    message.header = header
    message.header_bytes = len(header)
    message.body = address
    message.body_bytes = count
    return _sent(_sendmsg(fd, _local.message_reference, _FLAGS))


def _sent(count: int) -> int:
    if count >= 0:
        return count
    code = ctypes.get_errno()
    if code in _AGAIN:
        return 0
    raise ClientGone(os.strerror(code))


def peer_address(fd: int) -> IPv4Address | IPv6Address | None:
    """The peer's address, an IPv4-mapped one as IPv4; None if the connection is gone or has none."""
    try:
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            name = duplicate.getpeername()
        address = ip_address(name[0].partition("%")[0])
    except (OSError, ValueError, IndexError, TypeError):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def connect_private(name: str) -> socket.socket:
    """A non-blocking connection to the private socket of this name (listener.py); never waits.

    Raises:
        OSError: nobody listens, too many wait to be accepted, or whoever listens is another user.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.connect("\0" + name)
        if not is_own_user(made):
            raise PermissionError(errno.EACCES, f"the socket {name} belongs to another user")
    except BaseException:
        made.close()
        raise
    return made


def is_of_own_user(fd: int) -> bool:
    """As is_own_user(), of a descriptor."""
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        return is_own_user(duplicate)


def is_own_user(connected: socket.socket) -> bool:
    """Whether the other end of a connection of a private socket is a process of this user, or of root.

    By SO_PEERCRED (unix(7)), which nobody can forge: anybody may listen on an abstract name, and connect to one.
    """
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())


def peer_name(fd: int) -> bytes:
    """The peer's address as text, an IPv4-mapped one as IPv4; empty if the connection is gone or has none."""
    local = _local
    local.name_bytes.value = _NAME_BYTES
    if _getpeername(fd, local.name, local.name_bytes_reference) != 0:
        return b""
    return _address_text(local.name[:2] + b"\0\0" + local.name[4:])


@functools.lru_cache(maxsize=4096)
def _address_text(name: bytes) -> bytes:
    """Of a struct sockaddr_in or sockaddr_in6; without its port, so that one answer serves a client's connections."""
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET:
        return b"%d.%d.%d.%d" % tuple(name[4:8])
    if family != socket.AF_INET6:
        return b""
    address = IPv6Address(name[8:24])
    return str(address.ipv4_mapped or address).encode()


def has_arrived(fd: int, wait_ms: int = 0) -> bool:
    """Whether there is something to read, including the end of stream; waits so long for it, without the GIL."""
    return _is_ready(fd, select.POLLIN, wait_ms)


def has_left(fd: int) -> bool:
    """Whether the client has closed its side, or the connection is broken; never waits."""
    return _is_ready(fd, select.POLLRDHUP, 0)


def has_room(fd: int, wait_ms: int = 0) -> bool:
    """Whether a good part of the kernel's send buffer is free, or the connection broken; waits as has_arrived()."""
    return _is_ready(fd, select.POLLOUT, wait_ms)


def _is_ready(fd: int, events: int, wait_ms: int) -> bool:
    watched = _local.watched
    watched.fd = fd
    watched.events = events
    poll = _poll_waiting if wait_ms else _poll
    return bool(poll(_local.watched_reference, 1, wait_ms) > 0)


def lift_unsent_limit(fd: int) -> None:
    """Let the kernel take as much for this client as its buffer holds, whatever its window allows to send (tcp(7))."""
    _setsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NO_LIMIT, len(_NO_LIMIT))


def has_ended(fd: int) -> bool:
    """Whether the client has closed its side, or the connection is broken; never waits.

    What has arrived before is read and forgotten, up to DISCARDED_BYTES_MAX: as long as there is more, it has not.
    """
    buffer = _local.buffer
    for _ in range(DISCARDED_BYTES_MAX // _RECEIVE_BYTES):
        count = _recv(fd, buffer, _RECEIVE_BYTES, _DONTWAIT)
        if count <= 0:
            return bool(count == 0 or ctypes.get_errno() not in _AGAIN)
    return False


def end_sending(fd: int) -> bool:
    """Shut down the sending side (FIN after data in flight); False if the connection is gone."""
    return bool(_shutdown(fd, socket.SHUT_WR) == 0)


def reset(fd: int) -> None:
    """Reset the connection (RST), so that the client cannot take a part for the whole; the descriptor stays open.

    connect(2) to an address of family AF_UNSPEC disconnects a socket.
    """
    _connect(fd, _NO_ADDRESS, len(_NO_ADDRESS))


def close(fd: int) -> None:
    """Close a descriptor."""
    _close(fd)


_EVENT = struct.pack("@Q", 1)


def raise_event(eventfd: int) -> None:
    """Add one to an eventfd(2), and wake whoever waits for it.

    The GIL is kept: a thread that wakes sees what its waker did next without the GIL changing hands several times.
    """
    _write(eventfd, _EVENT, 8)


def lower_event(eventfd: int) -> None:
    """Take from a non-blocking eventfd(2): one if it is a semaphore, or everything."""
    _read(eventfd, ctypes.byref(ctypes.c_uint64()), 8)


_EPOLL_CTL_ADD, _EPOLL_CTL_DEL, _EPOLL_CTL_MOD = 1, 2, 3
_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT


def watch_once(epoll_fd: int, fd: int, *, again: bool) -> None:
    """Let an epoll report readability once; `again` for a descriptor that it knows already.

    Raises:
        OSError: the limit of watches is reached (epoll(7), /proc).
    """
    event = _EpollEvent(_ONCE, fd)
    if _epoll_ctl(epoll_fd, _EPOLL_CTL_MOD if again else _EPOLL_CTL_ADD, fd, ctypes.byref(event)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_ARMED_EVENTS = select.EPOLLIN | select.EPOLLONESHOT


def arm_once(epoll_fd: int, fd: int) -> None:
    """Let an epoll report once more that a descriptor which it knows is readable, at once if it is already."""
    _epoll_ctl(epoll_fd, _EPOLL_CTL_MOD, fd, ctypes.byref(_EpollEvent(_ARMED_EVENTS, fd)))


def watch(epoll_fd: int, fd: int, events: int) -> None:
    """Let an epoll report these events of a descriptor, whether it knows it or not. Errors as watch_once()."""
    event = ctypes.byref(_EpollEvent(events, fd))
    if _epoll_ctl(epoll_fd, _EPOLL_CTL_ADD, fd, event):
        code = ctypes.get_errno()
        if code != errno.EEXIST or _epoll_ctl(epoll_fd, _EPOLL_CTL_MOD, fd, event):
            raise OSError(code, os.strerror(code))


def unwatch(epoll_fd: int, fd: int) -> None:
    """Remove a descriptor from an epoll, even if it is not in it."""
    _epoll_ctl(epoll_fd, _EPOLL_CTL_DEL, fd, None)


def take_ready(epoll_fd: int) -> int | None:
    """One ready descriptor of an epoll, or None; never waits."""
    return _local.event.fd if _epoll_wait(epoll_fd, _local.event_reference, 1, 0) > 0 else None
