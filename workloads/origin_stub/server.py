"""The sockets and threads of the stub: accepts, reads request heads, performs the planned steps.

Leaving the context ends every connection, whatever a client or a held response is doing, and joins every thread.
"""

import os
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from io import BufferedReader
from types import TracebackType
from typing import Self, TypeAlias, assert_never
from urllib.parse import urlsplit

from workloads.origin_stub.body import Body
from workloads.origin_stub.folder import Folder
from workloads.origin_stub.incoming import read_body, read_head
from workloads.origin_stub.plan import Finish, Hold, Pause, Reset, SendBody, SendHead, Step, echo_body, plan_response
from workloads.origin_stub.request import BadRequestError, Request
from workloads.origin_stub.route import Framing, Route

_PIECE_BYTES = 256 * 1024
_LOOK_AGAIN_S = 0.02  # how soon a held response notices that the stub is being closed
_DRIPS_PER_S = 20
_ERROR_BODY = b"scripted failure\n"

Script: TypeAlias = Route | Sequence[Route]
"""One route for a path, or one for each request after the other; the last one stays."""


class _ConnectionEnds(Exception):
    """No error: the script, or the end of the stub, ends this connection."""


class OriginStub:
    """An HTTP/1.1 origin on a port of its own; serves a folder, scripted routes, or both.

    A route wins over a file. `template` gives the files of the folder their behaviour. With `tls` it speaks https.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Mapping[str, Script] | None = None,
        *,
        routes: Mapping[str, Script] | None = None,
        template: Route | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open the listening socket (raises OSError); connections are accepted once the context is entered."""
        self._folder: Folder | None = None
        self._tls = tls
        self._routes = {path: _routes_of(script) for path, script in (routes or {}).items()}
        if isinstance(source, Mapping):
            self._routes |= {path: _routes_of(script) for path, script in source.items()}
        elif source is not None:
            self._folder = Folder(os.fspath(source), template or Route())
        self._lock = threading.Condition()
        self._requests: list[Request] = []
        self._counts: Counter[str] = Counter()  # of each path in `requests`
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._connections_peak = 0
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="origin-accept")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=1024)
        self.host = host
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """The URL of the root, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in the order of their arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def connection_count(self) -> int:
        """How many clients are connected now."""
        with self._lock:
            return len(self._connections)

    @property
    def connections_peak(self) -> int:
        """How many clients have been connected at once, at most."""
        with self._lock:
            return self._connections_peak

    def count(self, path: str) -> int:
        """Return how many requests there were for `path`, whatever their method."""
        with self._lock:
            return self._counts[path]

    def forget_requests(self) -> None:
        """Forget the requests so far, and their counts: for those who ask for hours."""
        with self._lock:
            self._requests.clear()
            self._counts.clear()

    def wait_for(self, path: str, count: int, timeout_s: float = 30.0) -> bool:
        """Block until there were `count` requests for `path`; False when that did not happen in time."""
        with self._lock:
            return self._lock.wait_for(lambda: self._counts[path] >= count, timeout_s)

    def add(self, path: str, script: Script) -> None:
        """Answer `path` by this route, or by these in turn, from the next request on."""
        with self._lock:
            self._routes[path] = _routes_of(script)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop at once: end every connection and join every thread; may be called twice."""
        self._closing.set()
        if self._acceptor.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            self._acceptor.join()
        self._listener.close()
        with self._lock:
            for connection in self._connections.values():
                _shut_down(connection)
            threads = list(self._connections)
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed, a client that gave up, or no descriptor left: look again a little later
                self._closing.wait(_LOOK_AGAIN_S)
                continue
            thread = threading.Thread(target=self._converse, args=(connection,), name="origin-connection")
            with self._lock:
                self._connections[thread] = connection
                self._connections_peak = max(self._connections_peak, len(self._connections))
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        """Serve one connection to its end."""
        try:
            connection = self._secured(connection)
            with connection, connection.makefile("rb") as reader:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._closing.is_set() and self._serve_one(connection, reader):
                    pass
        except (OSError, _ConnectionEnds):
            pass  # the client went, or the script ends here
        finally:
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def _secured(self, connection: socket.socket) -> socket.socket:
        """The connection after the TLS handshake, if there is one to make; close() must know it."""
        if self._tls is None:
            return connection
        with connection:
            secured = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections[threading.current_thread()] = secured
        try:
            if self._closing.is_set():  # close() may have seen the one before
                raise _ConnectionEnds
            secured.do_handshake()
        except (OSError, _ConnectionEnds):
            secured.close()
            raise
        return secured

    def _serve_one(self, connection: socket.socket, reader: BufferedReader) -> bool:
        """Answer the next request; False when the connection ends."""
        try:
            request = read_head(reader)
            if request is None:
                return False
            route = self._route_for(request)
            if route.reads_body:
                if request.expects_continue and route.continues:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = read_body(reader, request)
                if body is None:
                    return False
                request = replace(request, body=body)
        except BadRequestError:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        with self._lock:
            earlier = self._counts[request.path]
            self._counts[request.path] += 1
            self._requests.append(request)
            self._lock.notify_all()
        if route.choose is not None:
            route = route.choose(request)
        keeps_alive = self._answer(connection, route, request, earlier)
        if not route.reads_body:  # to close with bytes unread would reset the connection, and lose the answer
            connection.shutdown(socket.SHUT_WR)
            while reader.read1(_PIECE_BYTES):
                pass
        return keeps_alive

    def _answer(self, connection: socket.socket, route: Route, request: Request, earlier: int) -> bool:
        """Perform the script; True when the connection is kept."""
        if route.echo:
            route = replace(route, body=echo_body(request), file_name=None)
        with Body(route) as body, Body(Route(body=_ERROR_BODY)) as error_body:
            steps = plan_response(route, request, earlier, body.size, error_body.size)
            sent = error_body if earlier < route.fail_first else body
            response = _Response(connection, route, sent, self._closing)
            for step in steps:
                response.perform(step)
        last = steps[-1]
        return isinstance(last, Finish) and last.keeps_alive

    def _route_for(self, request: Request) -> Route:
        path = urlsplit(request.path).path
        with self._lock:
            routes = self._routes.get(request.path) or self._routes.get(path)
            route = None if routes is None else routes.pop(0) if len(routes) > 1 else routes[0]
        if route is None and self._folder is not None:
            route = self._folder.route_for(path)
        allowed = ("GET", "HEAD") if route is None else route.methods
        if request.method not in allowed:
            return Route(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(allowed)})
        return route or Route(status=HTTPStatus.NOT_FOUND, body=b"no such object\n")


class _Response:
    """Performs the steps of one response."""

    def __init__(self, connection: socket.socket, route: Route, body: Body, closing: threading.Event) -> None:
        self._connection = connection
        self._route = route
        self._body = body
        self._closing = closing
        self._chunked = route.framing is Framing.CHUNKED

    def perform(self, step: Step) -> None:
        """Do one step; raises _ConnectionEnds or OSError when the connection is over."""
        match step:
            case SendHead(head=head):
                self._connection.sendall(head)
            case SendBody(start=start, stop=stop):
                self._send(start, stop)
            case Pause(seconds=seconds):
                self._pause(seconds)
            case Hold():
                self._hold()
            case Reset():
                linger = struct.pack("ii", 1, 0)  # close() then sends a reset instead of the rest
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raise _ConnectionEnds
            case Finish(last_chunk=last_chunk):
                self._connection.sendall(last_chunk)
            case _:
                assert_never(step)

    def _send(self, start: int, stop: int) -> None:
        rate = self._route.drip_bytes_per_s
        piece_bytes = _PIECE_BYTES if rate is None else max(int(rate / _DRIPS_PER_S), 1)
        while start < stop:
            piece = self._body.read(start, min(piece_bytes, stop - start))
            if not piece:
                raise _ConnectionEnds  # the file has shrunk: end short, as a broken origin does
            if self._chunked:
                self._connection.sendall(b"%x\r\n" % len(piece))
            self._connection.sendall(piece)
            if self._chunked:
                self._connection.sendall(b"\r\n")
            start += len(piece)
            if rate is not None:
                self._pause(len(piece) / rate)

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise _ConnectionEnds

    def _hold(self) -> None:
        assert self._route.hold is not None, "a hold was planned without an event"
        self._route.reached.set()
        while not self._route.hold.wait(_LOOK_AGAIN_S):
            if self._closing.is_set():
                raise _ConnectionEnds


def _routes_of(script: Script) -> list[Route]:
    return [script] if isinstance(script, Route) else list(script)


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already, or the client was faster
