"""OriginClient: one GET from an HTTP origin with libcurl; the only importer of pycurl.

A handle is made for each thread and kept: connections live in it. Redirects are followed here, not by libcurl, so that
each hop's host is checked by its own rule. The body comes as the origin sent it (no decompression), and is counted.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import pycurl

from webproxy.addresses import may_connect, may_redirect, parse_address, same_host
from webproxy.errors import (
    FetchAborted,
    OriginBadReply,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
)

BUFFER_BYTES = 256 * 1024
HEADER_BYTES_MAX = 65_536
UNWANTED_BYTES_MAX = 65_536
LENGTH_DIGITS_MAX = 19
ABSENT_STATUSES = frozenset({401, 403, 404, 410})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STATUS = re.compile(r"[1-9][0-9]{2}")
_HTTP = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginLimits:
    """Limits of one try, in seconds, bytes and hops."""

    connect_s: float
    stall_s: float
    redirects: int
    object_bytes_max: int


@dataclass(frozen=True, slots=True)
class OriginResponse:
    """Status and declared length of an answer; length None when the origin did not say. Header names are lower case."""

    status: int
    length: int | None
    headers: dict[str, str]


class Sink:
    """Who takes a response; what it raises ends the fetch and comes out of fetch()."""

    def begin(self, response: OriginResponse) -> bool:
        """The first byte of a body has come; True when the body is wanted. An empty body begins nothing."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """The next part of the body; may wait, and its waiting is not the origin's stalling."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Called now and then, about once a second also while nothing comes; True ends the fetch."""
        raise NotImplementedError


class OriginClient:
    """Thread-safe: each thread has a handle of its own."""

    def __init__(self, limits: OriginLimits) -> None:
        self._limits = limits
        self._local = threading.local()

    def fetch(self, url: str, sink: Sink) -> OriginResponse:
        """GET `url`, following redirects, and give the answer to the sink; returns the final header.

        Raises:
            OriginError: its subclass says what happened; a body that came short is OriginBadReply.
        """
        first = url
        for _ in range(self._limits.redirects + 1):
            attempt = _Attempt(self._handle(), url, sink, self._limits, named=same_host(url, first))
            target = attempt.run()
            if target is None:
                assert attempt.response is not None
                return attempt.response
            if not may_redirect(url, target):
                raise OriginRefused(f"{url} redirects to {target!r}: only to plain http and https, never https to http")
            url = target
        raise OriginRefused(f"{first} redirects more than {self._limits.redirects} times")

    def _handle(self) -> pycurl.Curl:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = pycurl.Curl()
        return handle


class _Attempt:
    """One hop: set-up, callbacks and outcome of one perform()."""

    def __init__(self, handle: pycurl.Curl, url: str, sink: Sink, limits: OriginLimits, *, named: bool) -> None:
        self._handle = handle
        self._url = url
        self._sink = sink
        self._limits = limits
        self._named = named
        self._status = 0
        self._header_bytes = 0
        self._headers: dict[str, str] = {}
        self._received = 0
        self._last_progress = monotonic()
        self._failure: BaseException | None = None
        self._refusal: OriginRefused | None = None
        self._sockets: list[socket.socket] = []
        self.response: OriginResponse | None = None
        self._unwanted = False

    def run(self) -> str | None:
        """Perform; None when the sink has got the answer, or the URL of a redirect."""
        redirect = self._perform()
        failure, self._failure = self._failure, None
        try:
            if self._unwanted:  # status and header are all that was wanted
                return None
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame: no cycle, so that it goes when it is handled
        if self._status in _REDIRECTS:
            if redirect:
                return redirect.decode("latin-1")
            raise OriginBadReply(f"{self._url}: status {self._status} without a usable Location", status=self._status)
        if self.response is None:
            raise OriginBadReply(f"{self._url}: no answer", retryable=True)
        if self.response.length is not None and self._received < self.response.length and self.response.status == 200:
            raise OriginBadReply(f"{self._url}: {self._received} of {self.response.length} bytes", retryable=True)
        return None

    def _perform(self) -> bytes | None:
        """Let libcurl work; returns where a redirect leads. What went wrong is in `_failure` then."""
        handle = self._handle
        self._configure()
        try:
            handle.perform()
            redirect: bytes | None = handle.getinfo_raw(pycurl.REDIRECT_URL)  # as sent: it need not be ASCII
        except pycurl.error as error:
            self._failure = self._failure or self._refusal or self._translate(error)
            return None
        else:
            return redirect
        finally:
            handle.reset()  # keeps the connections, drops the callbacks' references
            for made in self._sockets:
                made.close()

    def _configure(self) -> None:
        handle, limits = self._handle, self._limits
        handle.reset()
        options: dict[int, Any] = {
            pycurl.URL: self._url,
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: _HTTP,
            pycurl.REDIR_PROTOCOLS: _HTTP,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PATH_AS_IS: 1,  # the path was normalised for the key already
            pycurl.PROXY: "",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.HTTP_CONTENT_DECODING: 0,
            pycurl.BUFFERSIZE: BUFFER_BYTES,
            pycurl.CONNECTTIMEOUT_MS: int(limits.connect_s * 1000),
            pycurl.HTTPHEADER: ["Accept-Encoding: identity", "Accept: */*"],
            pycurl.USERAGENT: "webproxy",
            pycurl.HEADERFUNCTION: self._on_header,
            pycurl.WRITEFUNCTION: self._on_body,
            pycurl.NOPROGRESS: 0,
            pycurl.XFERINFOFUNCTION: self._on_progress,
            pycurl.OPENSOCKETFUNCTION: self._on_socket,
        }
        for option, value in options.items():
            handle.setopt(option, value)

    def _guarded(self, call: Callable[[], Any], failed: Any) -> Any:
        try:
            return call()
        except BaseException as error:  # noqa: BLE001 - libcurl is in between: kept, and raised after perform()
            self._failure = error
            return failed

    def _on_socket(self, _purpose: int, address: tuple[Any, ...]) -> Any:
        return self._guarded(lambda: self._make_socket(address), pycurl.SOCKET_BAD)

    def _make_socket(self, address: tuple[Any, ...]) -> Any:
        """A socket for an address of the origin's name; a refused one leaves the name's other addresses to be tried."""
        family, kind, protocol, endpoint = address
        ip = parse_address(endpoint[0]) if family in (socket.AF_INET, socket.AF_INET6) else None
        if ip is None or not may_connect(ip, named_by_operator=self._named):
            self._refusal = OriginRefused(f"{self._url}: address {ip} is not allowed for an origin")
            return pycurl.SOCKET_BAD
        self._sockets.append(socket.socket(family, kind, protocol))
        return self._sockets[-1]  # pycurl goes on with a duplicate

    def _on_progress(self, *_: object) -> int:
        return self._guarded(self._check_progress, 1)  # type: ignore[no-any-return]

    def _check_progress(self) -> int:
        if monotonic() - self._last_progress > self._limits.stall_s:
            raise OriginTimeout(f"{self._url}: nothing for {self._limits.stall_s:.1f} s", retryable=True)
        if self._sink.idle():
            raise FetchAborted(f"{self._url}: nobody waits for it any more")
        return 0

    def _on_header(self, line: bytes) -> int | None:
        return self._guarded(lambda: self._take_header(line), -1)  # type: ignore[no-any-return]

    def _take_header(self, line: bytes) -> None:
        self._last_progress = monotonic()
        self._header_bytes += len(line)
        if self._header_bytes > HEADER_BYTES_MAX:
            raise OriginBadReply(f"{self._url}: a header of more than {HEADER_BYTES_MAX} bytes")
        if self.response is not None:  # trailers
            return
        text = line.decode("latin-1").rstrip("\r\n")
        if text.startswith("HTTP/"):
            status = text.split(" ", 2)[1:2]
            if not status or not _STATUS.fullmatch(status[0]):
                raise OriginBadReply(f"{self._url}: {text!r} is no status line")
            self._headers, self._status = {}, int(status[0])
        elif not text:
            if self._status >= 200 and self._status not in _REDIRECTS:
                self._end_header()
        else:
            name, _, value = text.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "content-length" and self._headers.get(name, value) != value:
                raise OriginBadReply(f"{self._url}: two lengths, {self._headers[name]} and {value}")
            self._headers[name] = value

    def _end_header(self) -> None:
        declared = self._headers.get("content-length", "")
        known = declared.isdecimal() and "transfer-encoding" not in self._headers
        if known and (len(declared) > LENGTH_DIGITS_MAX or int(declared) > self._limits.object_bytes_max):
            raise OriginTooLarge(f"{self._url}: {declared[:32]} bytes, at most {self._limits.object_bytes_max}")
        self.response = OriginResponse(self._status, int(declared) if known else None, self._headers)

    def _on_body(self, data: bytes) -> int | None:
        return self._guarded(lambda: self._take_body(data), -1)  # type: ignore[no-any-return]

    def _take_body(self, data: bytes) -> int | None:
        first = not self._received
        self._received += len(data)
        if self.response is None:
            if self._received > UNWANTED_BYTES_MAX:
                raise OriginBadReply(f"{self._url}: a redirect of more than {UNWANTED_BYTES_MAX} bytes")
            return None
        if first:
            self._unwanted = not self._sink.begin(self.response)
        if self._unwanted:  # a short one is read to its end, so that the connection can be used again
            return None if self._received <= UNWANTED_BYTES_MAX else -1
        if self._received > self._limits.object_bytes_max:
            raise OriginTooLarge(f"{self._url}: more than {self._limits.object_bytes_max} bytes")
        self._sink.write(data)
        self._last_progress = monotonic()
        return None

    def _translate(self, error: pycurl.error) -> OriginError:
        code, message = error.args[0], f"{self._url}: {error.args[1]}"
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return OriginTimeout(message, retryable=True)
        if code in (
            pycurl.E_COULDNT_CONNECT,
            pycurl.E_COULDNT_RESOLVE_HOST,
            pycurl.E_SEND_ERROR,
            pycurl.E_RECV_ERROR,
            pycurl.E_GOT_NOTHING,
        ):
            return OriginUnreachable(message, retryable=True)
        return OriginBadReply(message, status=self._status, retryable=code in (pycurl.E_PARTIAL_FILE, pycurl.E_HTTP2))
