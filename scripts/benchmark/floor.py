"""The floor: a cache and a proxy process with nothing but the hot path. A yardstick, not a base to build on.

No deadlines, checks, limits or recovery. It answers complete getfile requests for the files of one flat directory.
Memory is shared by fork, and the queue's name is removed before the first request, so even `kill -9` leaves nothing
behind. As in the textbook, one worker thread of the proxy owns one segment; both sides keep every object they need at
hand.
"""

import argparse
import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

import posix_ipc

_HEADER_BYTES = 512
_AVAILABLE_AT, _SPACE_AT, _STATE_AT = 128, 160, 192
_COALESCED_BYTES_MAX = 65_536  # below this, header and body leave in one call
_MESSAGE_BYTES = 512
_MORE, _LAST, _MISSING = range(3)
_STATE, _OBJECT_BYTES, _CHUNK_BYTES = range(3)  # words of the header, written by the cache
_PR_SET_PDEATHSIG = 1

_waiting = ctypes.CDLL(None, use_errno=True)  # releases the GIL: only for calls that may block
_instant = ctypes.PyDLL(None)  # keeps it: a post or a try costs less than releasing the GIL
for _library in (_waiting, _instant):
    for _function in (_library.sem_wait, _library.sem_trywait, _library.sem_post):
        _function.argtypes = [ctypes.c_void_p]
_waiting.sem_init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]


class Segment:
    """Memory for one chunk, shared by both processes, with its two semaphores."""

    def __init__(self, size_bytes: int) -> None:
        self._mapping = mmap.mmap(-1, size_bytes)
        whole = memoryview(self._mapping)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        self.available, self.space = base + _AVAILABLE_AT, base + _SPACE_AT
        self.words = whole[_STATE_AT : _STATE_AT + 64].cast("Q")
        self.data = whole[_HEADER_BYTES:]
        _waiting.sem_init(self.available, 1, 0)
        _waiting.sem_init(self.space, 1, 1)


def _take(semaphore: int) -> None:
    if _instant.sem_trywait(semaphore) != 0:
        _waiting.sem_wait(semaphore)


def _open_files(root: str) -> dict[bytes, tuple[int, int]]:
    opened = {}
    for name in os.listdir(root):
        fd = os.open(os.path.join(root, name), os.O_RDONLY)
        opened[f"/{name}".encode()] = (fd, os.fstat(fd).st_size)
    return opened


def _cache_step(queue: posix_ipc.MessageQueue, segments: list[Segment], root: str) -> Callable[[int], None]:
    files = _open_files(root)

    def answer(_: int) -> None:
        message, _priority = queue.receive()
        segment, file = segments[message[0]], files.get(message[1:])
        words, data, available, space = segment.words, segment.data, segment.available, segment.space
        _take(space)
        if file is None:
            words[_STATE] = _MISSING
            _instant.sem_post(available)
            return
        fd, size = file
        words[_OBJECT_BYTES] = size
        offset = 0
        while True:
            words[_CHUNK_BYTES] = count = os.preadv(fd, [data], offset)
            offset += count
            words[_STATE] = _MORE if offset < size else _LAST
            _instant.sem_post(available)
            if offset >= size:
                return
            _take(space)

    return answer


def _proxy_step(
    queue: posix_ipc.MessageQueue, segments: list[Segment], listener: socket.socket
) -> Callable[[int], None]:
    def exchange(index: int) -> None:
        segment = segments[index]
        words, data, available, space = segment.words, segment.data, segment.available, segment.space
        client, _address = listener.accept()
        with client:
            request = client.recv(4352)
            queue.send(bytes((index,)) + request[12:-4])  # the text between "GETFILE GET " and the end
            _take(available)
            if words[_STATE] == _MISSING:
                client.sendall(b"GETFILE FILE_NOT_FOUND\r\n\r\n")
                _instant.sem_post(space)
                return
            header = b"GETFILE OK %d\r\n\r\n" % words[_OBJECT_BYTES]
            count = words[_CHUNK_BYTES]
            if count < _COALESCED_BYTES_MAX:
                client.sendmsg([header, data[:count]])
            else:
                client.sendall(header)
                client.sendall(data[:count])
            while words[_STATE] != _LAST:
                _instant.sem_post(space)
                _take(available)
                client.sendall(data[: words[_CHUNK_BYTES]])
            _instant.sem_post(space)

    return exchange


def _run(step: Callable[[int], None], threads: int) -> NoReturn:
    """Repeat the step in that many threads until the process is told to stop."""

    def repeat(index: int) -> None:
        while True:
            try:
                step(index)
            except OSError as gone:  # a client that left; the floor does not repair the segment
                sys.exit(f"floor: worker {index} ends: {gone}")

    for index in range(threads):
        threading.Thread(target=repeat, args=(index,), daemon=True).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


def serve(root: str, segment_bytes: int, threads: int) -> NoReturn:
    """Serve the files of one folder until SIGTERM; prints the port. The child is the cache, the parent the proxy."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    name = f"/floor-{os.getpid()}"
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=10, max_message_size=_MESSAGE_BYTES)
    queue.unlink()
    segments = [Segment(segment_bytes) for _ in range(threads)]
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    parent = os.getpid()
    if os.fork() == 0:
        listener.close()
        _waiting.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _run(_cache_step(queue, segments, root), threads)
    print(f"listening port={listener.getsockname()[1]}", file=sys.stderr, flush=True)
    _run(_proxy_step(queue, segments, listener), threads)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="floor", description=serve.__doc__)
    parser.add_argument("root", help="a folder of plain files")
    parser.add_argument("-z", dest="segment_bytes", type=int, default=262_144, help="size of one segment")
    parser.add_argument("-t", dest="threads", type=int, default=8, choices=range(1, 257), metavar="1-256")
    arguments = parser.parse_args()
    serve(arguments.root, arguments.segment_bytes, arguments.threads)


if __name__ == "__main__":
    main()
