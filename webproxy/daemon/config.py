"""ProxyConfig: every setting of the proxy daemon, declared once."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from shmchannel.daemonkit.daemon import DaemonConfig
from shmchannel.daemonkit.settings import SettingError, check_bounds, option
from shmchannel.errors import UsageError
from shmchannel.process.naming import DEFAULT_QUEUE_NAME, checked_queue_name
from shmchannel.streams.layout import SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX
from shmchannel.streams.pool import SEGMENTS_PER_TRANSFER_DEFAULT
from webproxy.admin.address import is_address
from webproxy.daemon.origin_config import OriginConfig, check_origin_url, checked_pattern
from webproxy.getfile import Wire
from webproxy.http.syntax import is_structured_token
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginLimits
from webproxy.origin.routing import HostPattern, OriginRule, OriginTable
from webproxy.origin.shares import ShareSettings
from webproxy.serving.run_queue import QueueSettings, Schedule
from webproxy.telemetry.line_file import STANDARD_OUTPUT
from webproxy.telemetry.log_line import LogFormat

PORT_DEFAULT = 25362
AUTO = "auto"
CACHES_MAX = 64
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_HEALTH_PATH = re.compile(r"/[!$-;=@-~]*")  # printable, without " # < > ?
_is_parameter_name = re.compile(r"[!\"$%'-<>-~]+").fullmatch  # printable, without # & =


class Protocol(StrEnum):
    """A protocol spoken on the port; the first bytes of a connection decide which."""

    GETFILE = "getfile"
    HTTP = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig(DaemonConfig):
    """Settings of webproxy."""

    port: int = option(
        PORT_DEFAULT,
        "TCP port to listen on; 0 lets the kernel choose",
        flags=("-p", "--port"),
        metavar="PORT",
        low=0,
        high=65535,
    )
    host: str = option("127.0.0.1", "address to listen on, IPv4 or IPv6", flags=("--host",), metavar="ADDR")
    protocols: tuple[Protocol, ...] = option(
        tuple(Protocol),
        "protocols spoken on the port; the first bytes of a connection decide",
        flags=("--protocols",),
        low=1,
    )
    workers: int = option(
        1,
        "worker processes behind one port, each with its own threads and segments; 1: one process, without a"
        " supervisor; auto: one for each processor",
        flags=("--workers",),
        low=1,
        high=64,
        words={"auto": 0},
    )
    worker_timeout_s: float = option(
        30.0, "longest silence of a worker process, after which it is killed and replaced", low=3, high=3600
    )
    worker_start_timeout_s: float = option(
        60.0, "longest time for a worker process, or the successor of this one, to be ready", low=0.1, high=3600
    )
    worker_threads: int = option(
        8,
        "threads that serve requests; more threads than segments are allowed and take turns",
        flags=("-t", "--threads"),
        low=1,
        high=512,
    )
    segment_count: int = option(
        8, "segments in the pool", flags=("-n", "--segments"), metavar="SEGMENTS", low=1, high=4096
    )
    segment_bytes: int = option(
        262_144,
        "size of a segment, header included",
        flags=("-z", "--segment-bytes"),
        low=SEGMENT_BYTES_MIN,
        high=SEGMENT_BYTES_MAX,
    )
    segments_per_transfer_max: int = option(
        SEGMENTS_PER_TRANSFER_DEFAULT,
        "maximum number of segments that one transfer leases",
        flags=("--segments-per-transfer-max",),
        low=1,
        high=SEGMENTS_MAX,
        formerly=("stripe",),
    )
    origin_url: str | None = option(
        None, "HTTP origin for objects that are not in the cache", flags=("-s", "--origin"), metavar="ORIGIN_URL"
    )
    compiled_hits: bool = option(
        True, "answer hits by the compiled loop, where it was compiled", flags=("--no-compiled-hits",)
    )
    use_cache: bool = option(True, "use the cache", flags=("--no-cache",))
    share_fetches: bool = option(
        True,
        "share fetches of equal misses with all worker processes and proxies that use the cache",
        flags=("--no-shared-fetches",),
    )
    holder_timeout_s: float = option(
        5.0,
        "longest silence of another process that fetches an object for this one too, until the origin has answered it;"
        " then this one takes the fetch over",
        low=2,
        high=3600,
    )
    queue_name: str = option(
        DEFAULT_QUEUE_NAME,
        "name of the cache's command queue",
        flags=("-q", "--queue"),
        metavar="NAME",
        low=2,
        high=201,
    )
    caches: tuple[str, ...] = option(
        (),
        "several caches among which the keys are spread, instead of the one of `queue_name`: their queue names, or"
        " `auto` for all of this user",
        flags=("--caches",),
        metavar="auto|NAME,...",
    )
    wire: Wire = option(Wire.CRLF, "format of getfile replies", flags=("--wire",))
    request_timeout_s: float = option(
        10.0,
        "time limit for a client to send the head of its request, from the first byte on, and for each next part of the"
        " body",
        low=0.05,
        high=3600,
    )
    cache_timeout_s: float = option(
        10.0,
        "time limit for the first byte from the cache, and before that for a long transfer to get its turn; without an"
        " origin, also for a cache to appear",
        low=0.05,
        high=3600,
        formerly=("deadline_s",),
    )
    cache_first_byte_timeout_s: float = option(
        2.0,
        "time limit for the first byte from the cache, after which the origin is asked instead",
        low=0.05,
        high=3600,
        formerly=("queue_wait_s",),
    )
    between_bytes_timeout_s: float = option(
        30.0, "time limit for the next chunk of a body from the cache", low=0.1, high=3600, formerly=("stall_s",)
    )
    client_min_rate_bytes_per_s: int = option(
        1024,
        "lowest rate at which a client must read, and send the body of a request; 0: none",
        low=0,
        high=1 << 30,
        formerly=("client_rate_bytes",),
    )
    client_rate_window_s: float = option(30.0, "time over which the rate of a client is measured", low=0.1, high=3600)
    origin_connect_s: float = option(5.0, "time limit for connecting to an origin", low=0.05, high=600)
    origin_stall_s: float = option(
        30.0, "longest time without a byte from an origin, the first one included", low=0.05, high=3600
    )
    origin_tries: int = option(4, "attempts per fetch, to start a body or to resume one that broke off", low=1, high=20)
    origin_connections_max: int = option(256, "connections to all origins, idle ones included", low=1, high=65_536)
    origin_connections_each_max: int = option(
        64,
        "the same to one origin, so that a slow one leaves some for the others",
        low=1,
        high=65_536,
    )
    origin_line_max: int = option(
        1024, "requests that wait for a connection to one origin; beyond that 503 or ERROR", low=0, high=65_536
    )
    origin_line_s: float = option(10.0, "longest wait for a connection to an origin", low=0.05, high=3600)
    origin_failures_to_open: int = option(
        5,
        "failures in a row after which an origin is not asked for some time: what is stale is served, the rest gets 503"
        " or 504; 0: it is always asked",
        low=0,
        high=1000,
    )
    origin_silence_s: float | None = option(
        None,
        "time without an answer that counts as a failure of the origin; default: `origin_stall_s`",
        low=0.05,
        high=3600,
    )
    origin_pause_s: float = option(
        1.0,
        "how long a failing origin is not asked; then one request tries, and if it fails the time doubles",
        low=0.05,
        high=3600,
    )
    origin_pause_max_s: float = option(30.0, "longest such time", low=0.05, high=3600)
    origin_redirects: int = option(5, "redirects followed for a getfile request", low=0, high=50)
    origin: tuple[OriginConfig, ...] = option((), "further origins, chosen by Host and path")
    forward_hosts: tuple[str, ...] = option(
        (), "hosts for which the proxy is a forward proxy for plain http: `host` (port 80), `host:port`, `*.suffix`"
    )
    ignored_query_parameters: tuple[str, ...] = option(
        (),
        "names of query parameters that are left out of keys and of requests to origins",
        formerly=("drop_parameters",),
    )
    purge_from: tuple[str, ...] = option(("127.0.0.1", "::1"), "addresses and networks that are allowed to PURGE")
    object_bytes_max: int = option(8 << 30, "maximum size of an object fetched from an origin", low=1, high=1 << 50)
    spool_directory: str | None = option(
        None, "directory for bodies on their way from and to origins; default: the system's temporary directory"
    )
    spool_window_bytes: int = option(
        16 << 20,
        "how far each body on its way from or to an origin may always run ahead of its fastest reader",
        low=65_536,
        high=1 << 40,
    )
    spool_bytes_max: int = option(
        4 << 30, "room for all such bodies together beyond their windows", low=0, high=1 << 50
    )
    http_head_bytes: int = option(8192, "maximum size of the head of an HTTP request", low=512, high=1 << 20)
    keepalive_s: float = option(60.0, "how long a connection may be idle before a request begins", low=0.05, high=3600)
    schedule: Schedule = option(
        Schedule.FIFO,
        "which new request is served first when more come than can be served: the oldest, or the newest",
        flags=("--schedule",),
    )
    run_queue_max: int = option(
        4096, "new connections that wait for a worker under overload; beyond that 503 or ERROR", low=1, high=1_000_000
    )
    run_queue_s: float = option(5.0, "longest such wait, then 503 or ERROR", low=0.05, high=3600)
    requests_waiting_max: int = option(
        16_384,
        "requests that may wait for an origin or a client; beyond that 503 or ERROR for one that would have to",
        low=1,
        high=1_000_000,
    )
    connections_max: int = option(
        10_000, "maximum number of client connections; beyond that 503 or ERROR", low=1, high=1_000_000
    )
    continue_fetch_after_share: float = option(
        0.5,
        "fraction of a body after which its fetch continues for the cache when all clients have left",
        low=0,
        high=1,
        formerly=("background_fetch_share",),
    )
    heuristic_ceiling_s: int = option(86_400, "maximum heuristic lifetime", low=0, high=31_536_000)
    heuristic_floor_s: int = option(
        5, "minimum heuristic lifetime of what has a Last-Modified, however new it is", low=0, high=31_536_000
    )
    heuristic_fraction: float = option(
        0.1, "heuristic lifetime as a fraction of the time since Last-Modified; 0: no heuristic lifetime", low=0, high=1
    )
    negative_lifetime_s: int = option(
        0, "lifetime of a 404, 405, 410, 414 or 501 without explicit freshness", low=0, high=31_536_000
    )
    failures_shared_s: float = option(
        1.0,
        "how long a 404 or 5xx serves equal requests, beyond those that waited for it; 0: only these",
        low=0,
        high=60,
    )
    stale_if_error_default_s: int = option(
        0,
        "how long a response without `stale-if-error` is served stale while its origin answers 500, 502, 503 or 504",
        low=0,
        high=31_536_000,
    )
    stale_if_disconnected_s: int = option(
        86_400, "how long a response is served stale while its origin is unreachable", low=0, high=31_536_000
    )
    store_set_cookie: bool = option(
        False, "store responses with Set-Cookie even if they are not marked `public` or `s-maxage`"
    )
    targeted_cache_control: bool = option(False, "let CDN-Cache-Control override Cache-Control and Expires")
    cache_status_name: str = option("gfcache", "name of the proxy in Cache-Status", high=64)
    admin: str | None = option(
        None,
        "address for operators, `HOST:PORT` or the path of a Unix socket: health, metrics, statistics and a page",
        flags=("--admin",),
        metavar="ADDR",
    )
    health_path: str | None = option(
        None,
        "path on the port itself, such as /.gfcache/health, that says whether this process accepts requests: 200,"
        " or 503 while it drains; neither cache nor origin is asked",
        high=1024,
    )
    access_log: str | None = option(
        None,
        "file that gets a line for each request that has ended; - for the standard output",
        flags=("--access-log",),
        metavar="PATH|-",
    )
    access_log_format: LogFormat = option(LogFormat.COMBINED, "format of these lines", flags=("--access-log-format",))
    request_id_from_client: bool = option(
        False, "let clients name their requests by X-Request-Id; otherwise it is ignored"
    )
    request_id_header: bool = option(False, "send the id of a request in X-Request-Id, to the client and to the origin")
    step_times: bool = option(False, "measure the latency of each step of a request, and log the totals at the end")

    def __post_init__(self) -> None:
        """Check each value against its bounds, and the values against each other."""
        check_bounds(self)
        try:
            checked_queue_name(self.queue_name)
        except UsageError as error:
            raise SettingError("queue_name", self.queue_name, error.hint) from None
        self._check_caches()
        if self.host.startswith("["):
            raise SettingError("host", self.host, "an address without brackets, such as ::1")
        if self.origin_url is not None:
            check_origin_url("origin_url", self.origin_url)
            self._check_not_itself("origin_url", self.origin_url)
        if self.origin_pause_max_s < self.origin_pause_s:
            raise SettingError("origin_pause_max_s", self.origin_pause_max_s, "at least origin_pause_s")
        for table in self.origin:
            self._check_not_itself("origin", table.url)
        if not (self.use_cache or self.origin_url or self.origin or self.forward_hosts):
            raise SettingError("use_cache", False, "true, unless there is an origin: give -s ORIGIN_URL too")
        directory = self.spool_directory
        if directory is not None and not (os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)):
            raise SettingError("spool_directory", directory, "a directory that can be written to")
        self._check_for_operators()
        self._check_origins()
        _patterns(self.forward_hosts)
        self.purge_networks()
        for name in self.ignored_query_parameters:
            if not _is_parameter_name(name):
                raise SettingError("ignored_query_parameters", name, "names as they appear in a query, without & = #")
        if not is_structured_token(self.cache_status_name.encode(errors="surrogatepass")):
            raise SettingError("cache_status_name", self.cache_status_name, "a word that begins with a letter")

    def _check_caches(self) -> None:
        if self.caches and not self.use_cache:
            raise SettingError("caches", ",".join(self.caches), "none if use_cache is false")
        if self.finds_caches:
            return
        if len(self.caches) > CACHES_MAX or len(set(self.caches)) != len(self.caches):
            raise SettingError("caches", ",".join(self.caches), f"each name once, and at most {CACHES_MAX}")
        for name in self.caches:
            try:
                checked_queue_name(name)
            except UsageError as error:
                raise SettingError("caches", name, f"{AUTO}, or queue names: {error.hint}") from None

    @property
    def finds_caches(self) -> bool:
        """Whether the caches are those that the registry finds."""
        return self.caches == (AUTO,)

    def _check_for_operators(self) -> None:
        if self.admin is not None and not is_address(self.admin):
            raise SettingError("admin", self.admin, "HOST:PORT, such as 127.0.0.1:25363, or a path with a slash")
        if self.health_path is not None and not _HEALTH_PATH.fullmatch(self.health_path):
            raise SettingError("health_path", self.health_path, "a path as in a request: a slash first, and no query")
        self._check_access_log()

    def _check_access_log(self) -> None:
        path = self.access_log
        if path is None or path == STANDARD_OUTPUT:
            return
        if os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise SettingError("access_log", path, "a file in a directory that is there, or -")

    def _check_not_itself(self, name: str, url: str) -> None:
        """Refuse the proxy itself as an origin: a miss would ask for itself."""
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
        silence_s = self.origin_silence_s
        limits = OriginLimits(
            connect_s=self.origin_connect_s,
            stall_s=self.origin_stall_s,
            redirects=self.origin_redirects,
            object_bytes_max=self.object_bytes_max,
            health=HealthSettings(
                failures_to_open=self.origin_failures_to_open,
                silence_s=self.origin_stall_s if silence_s is None else silence_s,
                pause_s=self.origin_pause_s,
                pause_max_s=self.origin_pause_max_s,
            ),
        )
        return OriginRule(url=url, tries=self.origin_tries, limits=limits)

    def _table_rules(self) -> list[OriginRule]:
        defaults = self._defaults()
        return [table.rule(defaults) for table in self.origin]

    def origin_table(self, own: Iterable[bytes] = ()) -> OriginTable:
        """Return the table that chooses the origin of a request; `own` are the authorities of this proxy itself."""
        default = [] if self.origin_url is None else [self._defaults(self.origin_url)]
        return OriginTable(
            [*default, *self._table_rules()],
            forward_hosts=_patterns(self.forward_hosts),
            forwarding=self._defaults(),
            own=own,
            ignored_query_parameters=frozenset(name.encode() for name in self.ignored_query_parameters),
        )

    def origin_shares(self) -> ShareSettings:
        """Return the bounds of connections to origins."""
        return ShareSettings(
            connections_max=self.origin_connections_max,
            origin_connections_max=self.origin_connections_each_max,
            line_max=self.origin_line_max,
            line_s=self.origin_line_s,
        )

    def worker_count(self) -> int:
        """Return the number of worker processes."""
        return self.workers or len(os.sched_getaffinity(0))

    def queue(self) -> QueueSettings:
        """Return the schedule and the bounds of the run queue."""
        return QueueSettings(self.schedule, self.run_queue_max, self.run_queue_s)

    def purge_networks(self) -> tuple[Network, ...]:
        """Return the networks of `purge_from`; an address is a network of one. Raises SettingError."""
        return tuple(_network(text) for text in self.purge_from)


def _own_names(host: str) -> set[str]:
    """Return the names by which this machine reaches a listener on that address."""
    names = {host.lower()}
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        names |= {"127.0.0.1", "::1", "localhost"}
    elif names & {"127.0.0.1", "localhost"}:
        names |= {"127.0.0.1", "localhost"}
    return names


def _patterns(hosts: tuple[str, ...]) -> tuple[HostPattern, ...]:
    return tuple(checked_pattern("forward_hosts", host) for host in hosts)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise SettingError("purge_from", text, "an address, or a network such as 10.0.0.0/8") from None
