"""ProxyConfig: every setting of the proxy daemon, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from shmchannel.commands import SEGMENTS_MAX
from shmchannel.daemonkit.logs import LogForm, LogLevel
from shmchannel.daemonkit.options import SettingError, check_bounds, option
from shmchannel.errors import UsageError
from shmchannel.layout import SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN
from shmchannel.naming import DEFAULT_QUEUE_NAME, checked_queue_name
from shmchannel.pool import STRIPE_DEFAULT
from webproxy.getfile import Wire

PORT_DEFAULT = 25362


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
    use_cache: bool = option(True, "ask the cache; without it every request goes to the origin", flags=("--no-cache",))
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
        10.0, "time until the first byte of an answer from the cache; without an origin, also the wait for a cache",
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
    origin_tries: int = option(4, "tries of a fetch while nothing has been sent to a client", low=1, high=20)
    origin_redirects: int = option(5, "redirects followed", low=0, high=50)
    object_bytes_max: int = option(8 << 30, "largest object fetched from the origin", low=1, high=1 << 50, unit="bytes")
    spool_directory: str | None = option(
        None, "where bodies on their way from the origin lie; default: the system's for temporary files"
    )
    spool_window_bytes: int = option(
        16 << 20, "how far a fetch may run ahead of its fastest reader", low=65_536, high=1 << 40, unit="bytes"
    )
    drain_s: float = option(10.0, "how long running requests may go on after SIGTERM", low=0, high=3600, unit="seconds")
    step_times: bool = option(False, "measure the share of each step of a request, logged at the end")

    def __post_init__(self) -> None:
        """Hold each value against its bounds, and the values against each other."""
        check_bounds(self)
        try:
            checked_queue_name(self.queue_name)
        except UsageError as error:
            raise SettingError("queue_name", self.queue_name, error.hint) from None
        if self.origin_url is not None:
            _check_origin_url(self.origin_url)
        elif not self.use_cache:
            raise SettingError("use_cache", False, "without a cache there must be an origin: give -s ORIGIN_URL too")


def _check_origin_url(url: str) -> None:
    allowed = "http://HOST[:PORT][/PATH] or https://..., without user, query or fragment"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if (
        not good
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise SettingError("origin_url", url, allowed)
