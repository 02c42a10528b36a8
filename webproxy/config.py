"""ProxyConfig: every setting of the proxy daemon, declared once."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from shmchannel.commands import SEGMENTS_MAX
from shmchannel.daemonkit.logs import LogForm, LogLevel
from shmchannel.daemonkit.options import SettingError, check_bounds, option
from shmchannel.errors import UsageError
from shmchannel.layout import SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN
from shmchannel.naming import DEFAULT_QUEUE_NAME, checked_queue_name
from shmchannel.pool import STRIPE_DEFAULT
from webproxy.getfile import Wire
from webproxy.http.syntax import is_structured_token
from webproxy.origin_settings import HOST_ALLOWED, OriginSettings, check_origin_url
from webproxy.origins import HostPattern, OriginRule, OriginTable, host_pattern
from webproxy.urls import BadTarget

PORT_DEFAULT = 25362
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_is_parameter_name = re.compile(r"[!\"$%'-<>-~]+").fullmatch  # printable, without # & =


class Protocol(StrEnum):
    """What is spoken on the port; the first bytes of a connection decide."""

    GETFILE = "getfile"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """Settings of webproxy."""

    port: int = option(
        PORT_DEFAULT,
        "TCP port to listen on; 0 lets the kernel choose",
        flags=("-p", "--port"),
        metavar="PORT",
        low=0,
        high=65535,
    )
    host: str = option("127.0.0.1", "address to listen on, IPv4 or IPv6", flags=("--host",), metavar="ADDR", low=1)
    protocols: tuple[Protocol, ...] = option(
        tuple(Protocol), "what is spoken on the port; the first bytes decide", flags=("--protocols",), low=1
    )
    worker_threads: int = option(
        8, "threads that serve requests; more than segments is allowed, they wait their turn",
        flags=("-t", "--threads"), metavar="N", low=1, high=512,
    )  # fmt: skip
    segment_count: int = option(
        8, "segments in the pool", flags=("-n", "--segments"), metavar="SEGMENTS", low=1, high=4096
    )
    segment_bytes: int = option(
        262_144, "size of one segment, header included", flags=("-z", "--segment-bytes"), metavar="BYTES",
        low=SEGMENT_BYTES_MIN, high=SEGMENT_BYTES_MAX, unit="bytes",
    )  # fmt: skip
    stripe: int = option(
        STRIPE_DEFAULT,
        "most segments that one transfer leases",
        flags=("--stripe",),
        metavar="K",
        low=1,
        high=SEGMENTS_MAX,
    )
    origin_url: str | None = option(
        None, "HTTP origin to fetch from what the cache lacks", flags=("-s", "--origin"), metavar="ORIGIN_URL"
    )
    use_cache: bool = option(True, "use the cache", flags=("--no-cache",))
    queue_name: str = option(
        DEFAULT_QUEUE_NAME,
        "name of the cache's command queue",
        flags=("-q", "--queue"),
        metavar="NAME",
        low=2,
        high=201,
    )
    wire: Wire = option(Wire.CRLF, "form of getfile replies", flags=("--wire",))
    log_level: LogLevel = option(LogLevel.INFO, "least importance that is logged", flags=("--log-level",), metavar="L")
    log_format: LogForm = option(LogForm.CONSOLE, "how an event is written")
    request_timeout_s: float = option(
        10.0, "time for a client to send its request", low=0.05, high=3600, unit="seconds"
    )
    deadline_s: float = option(
        10.0,
        "time until the first byte of an answer from the cache; without an origin, also the wait for a cache."
        " Before it, a long transfer waits as long for its turn",
        low=0.05, high=3600, unit="seconds",
    )  # fmt: skip
    queue_wait_s: float = option(
        2.0,
        "time until the first byte from the cache before the origin is asked instead",
        low=0.05,
        high=3600,
        unit="seconds",
    )
    stall_s: float = option(30.0, "time for the cache's next chunk in mid-body", low=0.1, high=3600, unit="seconds")
    client_rate_bytes: int = option(1024, "least bytes a second a client must take", low=0, high=1 << 30, unit="bytes")
    client_rate_window_s: float = option(
        30.0, "time over which that rate is measured", low=0.1, high=3600, unit="seconds"
    )
    origin_connect_s: float = option(5.0, "time to connect to the origin", low=0.05, high=600, unit="seconds")
    origin_stall_s: float = option(30.0, "longest silence of the origin", low=0.05, high=3600, unit="seconds")
    origin_tries: int = option(
        4, "tries of a fetch, to begin a body or to go on with one that broke off", low=1, high=20
    )
    origin_redirects: int = option(5, "redirects followed for a getfile request", low=0, high=50)
    origin: tuple[OriginSettings, ...] = option((), "more origins, chosen by Host and path")
    forward_hosts: tuple[str, ...] = option(
        (), "hosts for which the proxy is a forward proxy of plain http: `host` (port 80), `host:port`, `*.suffix`"
    )
    drop_parameters: tuple[str, ...] = option((), "names of query parameters that no key and no fetch contains")
    purge_from: tuple[str, ...] = option(("127.0.0.1", "::1"), "addresses and networks that may PURGE")
    object_bytes_max: int = option(8 << 30, "largest object fetched from the origin", low=1, high=1 << 50, unit="bytes")
    spool_directory: str | None = option(
        None, "where bodies on their way from the origin lie; default: the system's for temporary files"
    )
    spool_window_bytes: int = option(
        16 << 20, "how far a fetch may run ahead of its fastest reader", low=65_536, high=1 << 40, unit="bytes"
    )
    http_head_bytes: int = option(8192, "longest head of an HTTP request", low=512, high=1 << 20, unit="bytes")
    keepalive_s: float = option(
        60.0, "how long an HTTP connection may wait for its next request", low=0.05, high=3600, unit="seconds"
    )
    connections_max: int = option(10_000, "most client connections at a time", low=1, high=1_000_000)
    background_fetch_share: float = option(
        0.5, "share of a body from which on its fetch goes on for the cache though its clients have left", low=0, high=1
    )
    heuristic_ceiling_s: int = option(
        86_400, "longest lifetime that is guessed from Last-Modified", low=0, high=31_536_000, unit="seconds"
    )
    heuristic_fraction: float = option(
        0.1, "share of the time since Last-Modified that is guessed as a lifetime; 0: nothing is guessed", low=0, high=1
    )
    negative_lifetime_s: int = option(
        0,
        "lifetime of a 404, 405, 410, 414 or 501 that says nothing of its freshness",
        low=0,
        high=31_536_000,
        unit="seconds",
    )
    stale_if_error_default_s: int = option(
        0,
        "how long a response that names no `stale-if-error` serves stale while its origin answers 500, 502, 503 or 504",
        low=0,
        high=31_536_000,
        unit="seconds",
    )
    stale_if_disconnected_s: int = option(
        86_400,
        "how long a response serves stale while its origin cannot be reached",
        low=0,
        high=31_536_000,
        unit="seconds",
    )
    store_set_cookie: bool = option(
        False, "store a response that has Set-Cookie although it is not marked `public` or `s-maxage`"
    )
    targeted_cache_control: bool = option(False, "obey CDN-Cache-Control in place of Cache-Control and Expires")
    cache_status_name: str = option("gfcache", "what the proxy calls itself in Cache-Status", high=64)
    drain_s: float = option(10.0, "how long running requests may go on after SIGTERM", low=0, high=3600, unit="seconds")
    step_times: bool = option(False, "measure the share of each step of a request, logged at the end")

    def __post_init__(self) -> None:
        """Hold each value against its bounds, and the values against each other."""
        check_bounds(self)
        try:
            checked_queue_name(self.queue_name)
        except UsageError as error:
            raise SettingError("queue_name", self.queue_name, error.hint) from None
        if self.host.startswith("["):
            raise SettingError("host", self.host, "an address without brackets, such as ::1")
        if self.origin_url is not None:
            check_origin_url("origin_url", self.origin_url)
            self._check_not_itself("origin_url", self.origin_url)
        for table in self.origin:
            self._check_not_itself("origin", table.url)
        if not (self.use_cache or self.origin_url or self.origin or self.forward_hosts):
            raise SettingError("use_cache", False, "without a cache there must be an origin: give -s ORIGIN_URL too")
        directory = self.spool_directory
        if directory is not None and not (os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)):
            raise SettingError("spool_directory", directory, "a directory that can be written to")
        self._check_origins()
        _patterns(self.forward_hosts)
        self.purge_networks()
        for name in self.drop_parameters:
            if not _is_parameter_name(name):
                raise SettingError("drop_parameters", name, "names as they stand in a query, without & = #")
        if not is_structured_token(self.cache_status_name.encode(errors="surrogatepass")):
            raise SettingError("cache_status_name", self.cache_status_name, "a word that begins with a letter")

    def _check_not_itself(self, name: str, url: str) -> None:
        """A miss would ask the proxy for what the proxy asks for."""
        parts = urlsplit(url)
        if parts.scheme == "http" and (parts.port or 80) == self.port and parts.hostname in _own_names(self.host):
            raise SettingError(name, url, "a server that is not this proxy itself")

    def _check_origins(self) -> None:
        known: set[tuple[HostPattern | None, bytes]] = set()
        if self.origin_url is not None:
            known.add((None, b"/"))
        for number, rule in enumerate(self._table_rules(), start=1):
            if (rule.host, rule.path) in known:
                host = "" if rule.host is None else f"{self.origin[number - 1].host} "
                repeated = f"{host}{rule.path.decode()} in [[origin]] table {number}"
                raise SettingError("origin", repeated, "each host and path once (origin_url counts as path /)")
            known.add((rule.host, rule.path))

    def _defaults(self, url: str = "") -> OriginRule:
        return OriginRule(
            url=url, connect_s=self.origin_connect_s, stall_s=self.origin_stall_s, tries=self.origin_tries
        )

    def _table_rules(self) -> list[OriginRule]:
        defaults = self._defaults()
        return [table.rule(defaults) for table in self.origin]

    def origin_table(self, own: Iterable[bytes] = ()) -> OriginTable:
        """The table that chooses among the origins; `own` are the authorities that mean this proxy itself."""
        default = [] if self.origin_url is None else [self._defaults(self.origin_url)]
        return OriginTable(
            [*default, *self._table_rules()],
            forward_hosts=_patterns(self.forward_hosts),
            forwarding=self._defaults(),
            own=own,
            drop_parameters=frozenset(name.encode() for name in self.drop_parameters),
        )

    def purge_networks(self) -> tuple[Network, ...]:
        """The networks of `purge_from`; a single address is a network of one. Raises SettingError."""
        return tuple(_network(text) for text in self.purge_from)


def _own_names(host: str) -> set[str]:
    """How the machine itself calls what listens on that address."""
    names = {host.lower()}
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        names |= {"127.0.0.1", "::1", "localhost"}
    elif names & {"127.0.0.1", "localhost"}:
        names |= {"127.0.0.1", "localhost"}
    return names


def _patterns(hosts: tuple[str, ...]) -> tuple[HostPattern, ...]:
    return tuple(_pattern(host) for host in hosts)


def _pattern(host: str) -> HostPattern:
    try:
        return host_pattern(host.encode())
    except BadTarget:
        raise SettingError("forward_hosts", host, HOST_ALLOWED) from None


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise SettingError("purge_from", text, "an address, or a network such as 10.0.0.0/8") from None
