"""Hop: one request to an HTTP origin and its response: what libcurl is told, what it calls, and what comes of it.

Redirects are followed by whoever drives it instead of by libcurl, so that each hop's host is checked by its own rule.
The body is passed on as the origin sent it (no decompression), and counted. A request that must not be sent twice gets
a new connection: on a kept one that the origin has closed in the meantime, libcurl would send it again (RFC 9110
section 9.2.2). Nothing here blocks; libcurl is run by driver.py.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Protocol

import pycurl

from shmchannel.daemonkit.logs import about
from webproxy.errors import (
    BodyCutShort,
    OriginBadReply,
    OriginError,
    OriginRefused,
    OriginTimeout,
    OriginTooLarge,
    OriginUnreachable,
)
from webproxy.http.fields import Fields
from webproxy.http.syntax import FRAMING_FIELDS
from webproxy.origin.addresses import may_connect, parse_address, same_host
from webproxy.origin.handle import Handle, guarded
from webproxy.origin.health import Failure
from webproxy.origin.request import OriginLimits, OriginRequest, fields_for, header_lines
from webproxy.origin.response_head import HEADER_BYTES_MAX, HeadReader, OriginResponse
from webproxy.transport import sockets

BUFFER_BYTES = 256 * 1024
UNWANTED_BYTES_MAX = 65_536
CONTINUE_WAIT_MS = 1000
"""How long to wait for a response to Expect; many origins do not know 100 (RFC 9110 section 10.1.1)."""
ABSENT_STATUSES = frozenset({401, 403, 404, 410})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTTP = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
_HAS_HTTP2 = bool(pycurl.version_info()[4] & pycurl.VERSION_HTTP2)
_HTTP_VERSION = pycurl.CURL_HTTP_VERSION_2TLS if _HAS_HTTP2 else pycurl.CURL_HTTP_VERSION_1_1
# libcurl may have been built on another system, with its certificates elsewhere.
_SYSTEM_CAS = ssl.get_default_verify_paths()
_BAD_CERTIFICATE = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE})
_NOT_CONNECTED = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_SSL_CONNECT_ERROR})
_BROKEN = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING})
_CUT_SHORT = frozenset({pycurl.E_PARTIAL_FILE, pycurl.E_HTTP2})


def _is_connected(_socket: object, _purpose: int) -> int:
    return int(pycurl.SOCKOPT_ALREADY_CONNECTED)


class Sink(Protocol):
    """Receives a response, in the thread that drives all transfers: no method may block.

    An exception that a method other than ended() raises ends the transfer, and is what it ends with.
    """

    def interim(self, status: int, fields: Fields) -> None:
        """An interim response (1xx) has arrived; may be ignored."""

    def begin(self, response: OriginResponse) -> bool:
        """The final head has arrived, whether a body follows or not; returns whether the body is wanted."""

    def write(self, data: bytes) -> bool:
        """The next part of the body; False if there is no room: all of it comes again after Transfer.resume()."""

    def tick(self) -> None:
        """Called a few times a second while it lasts, whatever arrives."""

    def ended(self, outcome: OriginResponse | Exception) -> None:
        """It is over, with the head and the trailers, or with what went wrong (mostly an OriginError)."""


class Hop:
    """Whoever runs libcurl calls configure() before, and afterwards end() with its verdict, or forget()."""

    def __init__(
        self,
        url: str,
        request: OriginRequest,
        sink: Sink,
        limits: OriginLimits,
        on_head: Callable[[int], None],
        on_body: Callable[[], None],
        *,
        is_fresh: bool = False,
        subject: bytes = b"",
    ) -> None:
        """`on_head` is told the status of the final head; `on_body`, that there are bytes for deliver().

        `is_fresh`: it does not use a kept connection. `subject` is what log lines are about when libcurl calls, which
        may be while another hop is attended to.
        """
        self._is_fresh = is_fresh
        self._subject = subject
        self.url = url
        self.failure: Failure | None = None
        """What it tells of the origin that it ended without a head; None while it has not, or for a reason of ours."""
        self._on_head = on_head
        self._on_body = on_body
        self._request = request
        self._sink = sink
        self._limits = limits
        self._elsewhere = url != request.url and not same_host(url, request.url)
        self._heads = HeadReader(url, request.method)
        self.lines: list[bytes] = []
        self.line_bytes = 0
        self.line_bytes_max = HEADER_BYTES_MAX
        self._response: OriginResponse | None = None
        self._redirect: OriginResponse | None = None
        self._unwanted = False
        self._received = 0
        self._sent = 0
        self._last_progress = monotonic()
        self._is_starved = False
        """The body of the request has no bytes now."""
        self.is_full = False
        """The sink has no room now."""
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        """What has arrived of the body, and was not delivered."""
        self.verdict: tuple[tuple[int, str] | None] | None = None
        """What libcurl said at the end of it, while the last of the body waits to be delivered."""
        self._failure: BaseException | None = None
        self._refusal: OriginError | None = None
        self._sockets: list[socket.socket] = []

    @property
    def outcome(self) -> OriginResponse:
        """The head passed to the sink, with the trailers."""
        assert self._response is not None
        trailers = self._heads.trailers
        return replace(self._response, trailers=trailers) if len(trailers) else self._response

    def silent_s(self, now: float) -> float:
        """For how long the origin has been silent; while it is paused, it waits for us."""
        return 0.0 if self._is_starved or self.is_full else now - self._last_progress

    def give_up(self) -> None:
        """The origin has been silent for too long: that is what it ends with, if its body is wanted."""
        self._failure = OriginTimeout(f"{self.url}: nothing for {self._limits.stall_s:.1f} s")

    def unpause(self) -> bool:
        """There is room for the response, or more of the request's body; True if libcurl is to continue."""
        was_paused, self._is_starved, self.is_full = self._is_starved or self.is_full, False, False
        self._last_progress = monotonic()
        return was_paused

    @property
    def holds_body(self) -> bool:
        """Whether a part of the body waits to be delivered."""
        return bool(self._parts)

    def deliver(self) -> bool:
        """Offer the sink what has arrived of the body; False if it has no room, and libcurl is to pause.

        libcurl hands over at most 16 KiB at a time, and each time somebody may have to be woken: it is collected for as
        long as libcurl has more at once.

        Raises:
            What the sink raises.
        """
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._parts_bytes = [], 0
            with about(self._subject):
                is_taken = self._sink.write(data)
            if not is_taken:
                self._parts, self._parts_bytes = [data], len(data)
                self.is_full = True
                return False
        return True

    def was_unlucky(self, handle: Handle, error: tuple[int, str]) -> bool:
        """Whether all connections it tried were kept ones that the origin had closed: libcurl gives up after five."""
        is_broken = error[0] in _BROKEN and self._response is None and self._failure is None
        return (
            is_broken
            and self._request.repeatable
            and not self._is_fresh
            and not handle.curl.getinfo(pycurl.NUM_CONNECTS)
        )

    def forget(self, handle: Handle) -> None:
        """It is given up, or over: the handle is free for another."""
        handle.user = None
        for made in self._sockets:
            made.close()

    def end(self, handle: Handle, error: tuple[int, str] | None) -> str | None:
        """libcurl has done with it; returns None if the sink has received the answer, or where a redirect leads to.

        Raises:
            OriginError, or what the sink or the body's source raised.
        """
        location = None
        if self._redirect is not None:
            location = handle.curl.getinfo_raw(pycurl.REDIRECT_URL)  # as sent: it need not be ASCII
        self.forget(handle)
        self._take_trailers()
        failure, self._failure = self._failure, None
        if error is not None:
            failure = failure or self._refusal or self._translate(*error)
        try:
            if self._unwanted:  # only status and header were wanted
                return None
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback refers to this frame: break the cycle, so that it is freed once handled
        return self._end_of_answer(location)

    def _end_of_answer(self, location: bytes | None) -> str | None:
        again = self._request.repeatable
        if self._redirect is not None:
            if location:
                return location.decode("latin-1")
            status = self._redirect.status
            raise OriginBadReply(f"{self.url}: status {status} without a usable Location", status=status)
        if self._response is None:
            self.failure = Failure.BAD_ANSWER
            raise OriginBadReply(f"{self.url}: no answer", retryable=again)
        length = self._response.length
        if length is not None and self._received < length:
            raise OriginBadReply(f"{self.url}: {self._received} of {length} bytes", retryable=again)
        return None

    def _take_trailers(self) -> None:
        if self.lines and self._response is not None:
            try:
                self._take_lines()
            except OriginError as error:
                self._failure = self._failure or error

    def configure(self, handle: Handle) -> None:
        """Tell libcurl what to do.

        Raises:
            OriginRefused: the request cannot be sent.
        """
        limits, request = self._limits, self._request
        fields = fields_for(request, limits.add_fields, elsewhere=self._elsewhere)
        curl = handle.curl
        kind = self._kind()
        if kind is None or handle.told != kind:
            handle.reset()
            for option, value in self._options().items():
                curl.setopt(option, value)
        curl.setopt(pycurl.URL, self.url)
        curl.setopt(pycurl.HTTPHEADER, header_lines(fields))
        handle.user, handle.told = self, kind

    def _kind(self) -> Hashable:
        """Equal for two requests that have equal options; None if there are too many kinds of such a request."""
        limits, request = self._limits, self._request
        is_plain = request.method == b"GET" and not (request.sends_body or request.holder or self._is_fresh)
        if not is_plain or self._elsewhere or self.url.endswith("?"):
            return None
        return limits.connect_s, limits.tls_verify, limits.ca_file

    def _options(self) -> dict[int, Any]:
        """All but the URL and the fields."""
        limits, request = self._limits, self._request
        return {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: _HTTP,
            pycurl.REDIR_PROTOCOLS: _HTTP,
            pycurl.HTTP_VERSION: _HTTP_VERSION,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PATH_AS_IS: 1,  # the path was normalised for the key already
            pycurl.PROXY: "",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.HTTP_CONTENT_DECODING: 0,
            pycurl.BUFFERSIZE: BUFFER_BYTES,
            pycurl.CONNECTTIMEOUT_MS: int(limits.connect_s * 1000),
            # If a kept connection turns out to be dead, libcurl sends the request again by itself. Requests that may be
            # sent only once, and a URL with an empty query, whose question mark it then loses, get a new connection.
            pycurl.FRESH_CONNECT: self._is_fresh or not request.repeatable or self.url.endswith("?"),
            **self._tls_options(),
            **self._method_options(),
            **self._holder_options(),
        }

    def _holder_options(self) -> dict[int, Any]:
        """A connection to the private socket of another process; libcurl is handed one that is connected already."""
        if not self._request.holder:
            return {}
        return {
            pycurl.UNIX_SOCKET_PATH: self._request.holder,
            pycurl.OPENSOCKETFUNCTION: partial(guarded, self, self._connect_holder, pycurl.SOCKET_BAD),
            pycurl.SOCKOPTFUNCTION: _is_connected,
            pycurl.FRESH_CONNECT: 1,
            pycurl.FORBID_REUSE: 1,
        }

    def _connect_holder(self, _purpose: int, _address: object) -> Any:
        try:
            self._sockets.append(sockets.connect_private(self._request.holder))
        except OSError as error:
            self._refusal = OriginUnreachable(f"{self.url}: {error.strerror or error}")
            return pycurl.SOCKET_BAD
        return self._sockets[-1]

    def _tls_options(self) -> dict[int, Any]:
        """Certificate verification; the operator's settings apply to the origin's own host only."""
        limits = self._limits
        if not limits.tls_verify and not self._elsewhere:
            return {pycurl.SSL_VERIFYPEER: 0, pycurl.SSL_VERIFYHOST: 0}
        own = None if self._elsewhere else limits.ca_file
        places = {pycurl.CAINFO: own} if own else {pycurl.CAINFO: _SYSTEM_CAS.cafile, pycurl.CAPATH: _SYSTEM_CAS.capath}
        return {option: place for option, place in places.items() if place is not None}

    def _method_options(self) -> dict[int, Any]:
        request = self._request
        if request.method == b"HEAD":
            return {pycurl.NOBODY: 1}
        options: dict[int, Any] = {}
        if request.sends_body:  # first: it would change the method
            length = request.body.length if request.body is not None else 0
            options[pycurl.UPLOAD] = 1
            options[pycurl.UPLOAD_BUFFERSIZE] = BUFFER_BYTES
            options[pycurl.INFILESIZE_LARGE] = -1 if length is None else length
            options[pycurl.READFUNCTION] = partial(guarded, self, self._read_body, pycurl.READFUNC_ABORT)
            options[pycurl.EXPECT_100_TIMEOUT_MS] = CONTINUE_WAIT_MS
        if options or request.method != b"GET":
            options[pycurl.CUSTOMREQUEST] = request.method
        return options

    def failed(self, error: BaseException) -> None:
        """As User.failed()."""
        self._failure = error

    def make_socket(self, _purpose: int, address: tuple[Any, ...]) -> Any:
        """As User.make_socket(); after a refusal libcurl tries the other addresses of the origin's name."""
        family, kind, protocol, endpoint = address
        ip = parse_address(endpoint[0]) if family in (socket.AF_INET, socket.AF_INET6) else None
        named = self._request.named_by_operator and not self._elsewhere
        if ip is None or not may_connect(ip, named_by_operator=named):
            self._refusal = OriginRefused(f"{self.url}: address {ip} is not allowed for an origin")
            return pycurl.SOCKET_BAD
        try:
            self._sockets.append(socket.socket(family, kind, protocol))
        except OSError as error:  # out of descriptors
            self._refusal = OriginUnreachable(f"{self.url}: {error.strerror or error}", retryable=True)
            return pycurl.SOCKET_BAD
        return self._sockets[-1]  # pycurl continues with a duplicate

    def _read_body(self, size: int) -> bytes | int:
        """The next bytes to send; a body that ends too early must not look complete."""
        source = self._request.body
        with about(self._subject):
            data = source.read(size) if source is not None else b""
        if data is None:
            self._is_starved = True
            return int(pycurl.READFUNC_PAUSE)
        self._sent += len(data)
        if not data and source is not None and source.length is not None and self._sent < source.length:
            raise BodyCutShort(f"{self.url}: {self._sent} of {source.length} bytes to be sent")
        self._last_progress = monotonic()
        return data

    def _take_lines(self) -> OriginResponse | None:
        lines, self.lines = self.lines, []
        try:
            return self._heads.take_all(lines)
        except OriginError:
            self.failure = Failure.BAD_ANSWER
            raise

    def take_head(self) -> int | None:
        """As User.take_head()."""
        with about(self._subject):
            return self._take_head()

    def _take_head(self) -> int | None:
        head = self._take_lines()
        ends = False
        if head is not None:
            if head.status >= 200:
                self._on_head(head.status)
            if head.status < 200:
                self._sink.interim(head.status, head.fields)
            elif self._request.follow_redirects and head.status in _REDIRECTS:
                self._redirect = head
            else:
                ends = self._begin(head)
        self._last_progress = monotonic()
        return -1 if ends else None

    def _begin(self, head: OriginResponse) -> bool:
        """Pass on the final head; returns True if libcurl must stop here."""
        refused = head.status == 417 and self._request.expects_continue
        if refused:  # libcurl would repeat the request without Expect; the client is to be told instead
            fields = head.fields.without(FRAMING_FIELDS)
            head = replace(head, fields=fields.with_line(b"Content-Length", b"0"), length=0)
        most = self._limits.object_bytes_max
        if most is not None and head.length is not None and head.length > most:
            raise OriginTooLarge(f"{self.url}: {head.length} bytes, at most {most}")
        self._response = head
        self._unwanted = not self._sink.begin(head) or refused
        return refused

    def take_body(self, data: bytes) -> int | None:
        """As User.take_body()."""
        if self._response is None:
            self._received += len(data)
            if self._received > UNWANTED_BYTES_MAX:
                raise OriginBadReply(f"{self.url}: a redirect of more than {UNWANTED_BYTES_MAX} bytes")
            return None
        if self._unwanted:  # a short one is read to its end, so that the connection can be reused
            self._received += len(data)
            return None if self._received <= UNWANTED_BYTES_MAX else -1
        most = self._limits.object_bytes_max
        if most is not None and self._received + len(data) > most:
            raise OriginTooLarge(f"{self.url}: more than {most} bytes")
        if not self._parts:
            self._on_body()
        elif self._parts_bytes + len(data) > BUFFER_BYTES and not self.deliver():
            return int(pycurl.WRITEFUNC_PAUSE)
        self._parts.append(data)
        self._parts_bytes += len(data)
        self._received += len(data)
        self._last_progress = monotonic()
        return None

    def _translate(self, code: int, reason: str) -> OriginError:
        message = f"{self.url}: {reason}"
        again = self._request.repeatable
        self.failure = Failure.UNREACHABLE
        if code == pycurl.E_OPERATION_TIMEDOUT:  # of connecting: the only time that libcurl measures
            return OriginTimeout(message, retryable=True)
        if code in _BAD_CERTIFICATE:
            return OriginUnreachable(message)
        if code in _NOT_CONNECTED:  # nothing was sent
            return OriginUnreachable(message, retryable=True)
        self.failure = Failure.RESET
        if code in _BROKEN:
            return OriginUnreachable(message, retryable=again)
        self.failure = Failure.BAD_ANSWER
        status = self._response.status if self._response is not None else 0
        return OriginBadReply(message, status=status, retryable=again and code in _CUT_SHORT)
