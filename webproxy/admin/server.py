"""AdminServer: answers operators, probes and scrapers over HTTP, on an address of its own.

It runs in a small process without any part in the serving and reads shared memory for its answers. Looking there and
writing an answer take milliseconds of processor time, which under load can become tens of them. So what somebody asks
for is renewed in the background, every RENEW_SECONDS until nobody has asked for ASKED_SECONDS, and is answered from
there: a request costs next to nothing, and many who ask cost no more than one. Only what nobody asked for lately is
looked up while its client waits. It answers GET and HEAD only, one request for each connection, CONNECTIONS_MAX at a
time. A client that has not asked and taken its answer within CLIENT_SECONDS is
dropped, and when all places are taken, the oldest one gives way to the newest: however many clients are silent or slow,
a probe is answered.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple

from webproxy.admin.address import is_own
from webproxy.admin.exposition import CONTENT_TYPE, exposition
from webproxy.admin.overview import Overview, as_json, segment_as_json

RENEW_SECONDS = 0.5
KEPT_SECONDS = 2.0
"""An older answer is not given, should renewals be late: the client waits for a new one."""
ASKED_SECONDS = 90.0
"""Scrapers come every 15 to 60 seconds."""
CONNECTIONS_MAX = 32
CLIENT_SECONDS = 5.0
_CUT_SECONDS = 0.5
"""By then a thread whose connection was cut has noticed; one that looks at shared memory may need longer."""
_JSON = "application/json"
_LIVE = "live"


class Answer(NamedTuple):
    """What a path is answered with."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Pages:
    """The answers by path; thread-safe."""

    def __init__(self, take: Callable[[], Overview], clock: Callable[[], float] = monotonic) -> None:
        """`take` looks at everything."""
        self._take = take
        self._clock = clock
        self._paths: dict[str, Callable[[Overview], Answer]] = {
            "/health": health,
            "/ready": ready,
            "/metrics": lambda overview: Answer(HTTPStatus.OK, CONTENT_TYPE, exposition(overview)),
            "/stats": lambda overview: _json(as_json(overview)),
            "/segments": lambda overview: _json([segment_as_json(segment) for segment in overview.segments]),
        }
        self._looking = threading.Lock()
        self._kept: _Kept | None = None
        """Replaced as a whole by whoever looks, so that others need no lock to be answered."""
        self._asked: dict[str, float] = {}
        """When each path was last asked for."""

    def answer(self, target: str) -> Answer:
        """The answer for a path, whose query is ignored."""
        path = target.partition("?")[0]
        if path == "/":
            return page()
        if path not in self._paths:
            return _text(HTTPStatus.NOT_FOUND, f"not here; there are: {' '.join(('/', *self._paths))}")
        self._asked[path] = self._clock()
        return self._known(path) or self._look_for(path)

    def keep_fresh(self, stopping: threading.Event) -> None:
        """Renew what is asked for until `stopping` is set; for a thread of its own."""
        while not stopping.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # whoever asks when nothing is kept meets it, too
                self.renew()

    def renew(self) -> None:
        """Look again and write the answers anew that were asked for lately; nothing if there was none."""
        since = self._clock() - ASKED_SECONDS
        wanted = [path for path, asked in self._asked.copy().items() if asked >= since]
        if wanted:
            with self._looking:
                kept = self._looked()
                kept.answers.update((path, self._paths[path](kept.overview)) for path in wanted)
                self._kept = kept

    def _known(self, path: str) -> Answer | None:
        kept = self._kept
        return kept.answers.get(path) if kept is not None and self._is_fresh(kept) else None

    def _look_for(self, path: str) -> Answer:
        """Look while the client waits; of several that wait the first one does it for all."""
        with self._looking:
            known = self._known(path)
            if known is not None:
                return known
            kept = self._kept
            if kept is None or not self._is_fresh(kept):
                kept = self._kept = self._looked()
            answer = kept.answers[path] = self._paths[path](kept.overview)
            return answer

    def _looked(self) -> _Kept:
        at = self._clock()  # before: it is at least as old as what was looked at first
        return _Kept(at, self._take(), {})

    def _is_fresh(self, kept: _Kept) -> bool:
        return self._clock() - kept.at <= KEPT_SECONDS


class _Kept(NamedTuple):
    """An overview, when it was taken, and what was written of it."""

    at: float
    overview: Overview
    answers: dict[str, Answer]


def health(overview: Overview) -> Answer:
    """200 while a process of the proxy lives and makes progress, one that is about to end included."""
    states = {process.pid: process.state for process in overview.processes if process.role == "proxy"}
    lives = _LIVE in states.values()
    return _json({"live": lives, "processes": states}, is_fine=lives)


def ready(overview: Overview) -> Answer:
    """200 while a process of the proxy accepts requests and makes progress."""
    accepting = [process.pid for process in overview.processes if process.role == "proxy" and process.accepts]
    return _json({"ready": bool(accepting), "accepting": accepting}, is_fine=bool(accepting))


def _json(value: object, *, is_fine: bool = True) -> Answer:
    status = HTTPStatus.OK if is_fine else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, _JSON, json.dumps(value).encode() + b"\n")


def _text(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


@cache
def page() -> Answer:
    """The page for a browser, which may use nothing but what is in it, and ask nobody but this server."""
    body = importlib.resources.files("webproxy.admin").joinpath("page.html").read_bytes()
    policy = (
        "default-src 'none'",
        f"script-src {_hash(body, b'script')}",
        f"style-src {_hash(body, b'style')}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return Answer(HTTPStatus.OK, "text/html; charset=utf-8", body, {"Content-Security-Policy": "; ".join(policy)})


def _hash(body: bytes, element: bytes) -> str:
    [text] = re.findall(b"<%b>(.*?)</%b>" % (element, element), body, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


class _Handler(BaseHTTPRequestHandler):
    server_version = "gfcache-admin"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SECONDS
    server: AdminServer

    def do_GET(self) -> None:
        answer = self._answer()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.close_connection = True

    def _answer(self) -> Answer:
        names = self.server.names
        if names is not None and not all(is_own(host, names) for host in self.headers.get_all("Host", [])):
            return _text(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"not called so here; ask by an IP address or one of: {' '.join(sorted(names))}."
                " Another name can be given in --admin NAME:PORT.",
            )
        return self.server.pages.answer(self.path)

    do_HEAD = do_GET  # noqa: N815 - the name is the protocol of the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Nothing is logged: scrapers come every few seconds."""

    def address_string(self) -> str:
        return "local"  # a client of a Unix socket has no address


class AdminServer(socketserver.ThreadingTCPServer):
    """Serves `pages` on a listening socket, TCP or Unix, which it takes over."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, pages: Pages, names: frozenset[str] | None = None) -> None:
        """`names` are those of own_names(); None: it may be called anything."""
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.pages = pages
        self.names = names
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._began: dict[socket.socket, float] = {}
        """When each connection came, oldest first; only what is not closed is in here."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection; if there is no place, that of the oldest, which is cut."""
        if not self._places.acquire(blocking=False):
            self._cut(oldest=True)
            if not self._places.acquire(timeout=_CUT_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._began[request] = monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called between looks at the listener: a time-out of the socket alone is begun anew by each byte."""
        self._cut(before=monotonic() - CLIENT_SECONDS)

    def _cut(self, *, before: float = 0.0, oldest: bool = False) -> None:
        """End connections that began before then, or the oldest; their threads notice and close them."""
        with self._lock:
            slow = [request for request, began in self._began.items() if began < before]
            for request in slow or list(self._began)[:oldest]:
                del self._began[request]
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """As the base class; from now on the connection is not to be cut, for its descriptor may be another's."""
        with self._lock:
            self._began.pop(request, None)
        super().shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left, or was too slow."""
