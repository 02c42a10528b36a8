"""The plan of descriptors: how many connections and other files a proxy may have below its limit (RLIMIT_NOFILE).

plan_descriptors() is the one place that adds them up. If the limit is too low for the settings, each kind gets a share
of what there is, as in the cache, and connections of clients get what the others leave. Beyond them a client is told
so; without a plan it would be the spool of somebody else's body that finds no descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shmchannel.objects.hot_table_files import OPEN_MAX
from webproxy.daemon.config import ProxyConfig
from webproxy.errors import StartupError
from webproxy.origin.driver import FOLLOWED_MAX
from webproxy.serving.parking import LINGERING_MAX

_BASE = 32  # streams, listener, queue, guards, hot table, epolls; half as many again as a proxy has at its start
_PER_WORKER = 3  # its connection, a file, and one that is being opened or closed
_PER_ORIGIN_CONNECTION = 2  # the socket, and libcurl's duplicate of it; also to a process that is followed
_PER_CACHE = 8  # guard, queue, hot table and its marks, and those of the cache before it
_CACHES_FOUND = 8  # so many, if they are found
_SHARES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorPlan:
    """How many of each kind there may be.

    `body_files` are spools, and files of the cache from which hits are sent: a large body on its way has one, for all
    of its clients, and a request that is passed through may have two. Spools keep to `spool_files_max` of them; one
    that gets none goes through memory (spool.py). `wanted` is the limit from which on the settings hold as they are.
    """

    limit: int
    wanted: int
    connections_max: int
    origin_connections_max: int
    followed_max: int
    body_files: int
    lingering_max: int
    caches: int

    @property
    def spool_files_max(self) -> int:
        """How many of `body_files` spools may have; the others wait for their readers, without one."""
        return max(self.body_files - OPEN_MAX * max(1, self.caches), self.body_files // 2, 1)

    @property
    def cache_files_max(self) -> int:
        """How many files of one cache may be open; further objects are requested by commands."""
        return max(1, min(OPEN_MAX, (self.body_files - self.spool_files_max) // max(1, self.caches)))

    def shortage(self, config: ProxyConfig) -> str | None:
        """What the limit makes of the settings, and the remedy, in a line; None if it is high enough for them."""
        lowered = [
            f"{name} is {planned} instead of {getattr(config, name)}"
            for name, planned in (
                ("connections_max", self.connections_max),
                ("origin_connections_max", self.origin_connections_max),
            )
            if planned < getattr(config, name)
        ]
        if not lowered:
            return None
        return (
            f"the limit of {self.limit} descriptors is too low for the settings: {', '.join(lowered)};"
            f" raise it to {self.wanted} (LimitNOFILE, ulimit -n), or lower these"
        )

    def applied(self, config: ProxyConfig) -> ProxyConfig:
        """The settings as far as the limit allows."""
        return replace(config, connections_max=self.connections_max, origin_connections_max=self.origin_connections_max)


def plan_descriptors(limit: int, config: ProxyConfig) -> DescriptorPlan:
    """Divide a soft limit, which is below 0 if there is none.

    Raises:
        StartupError: it does not suffice for the least that a proxy with these settings needs.
    """
    segments = config.segment_count if config.use_cache else 0
    caches = 0 if not config.use_cache else _CACHES_FOUND if config.finds_caches else len(config.caches) or 1
    fixed = _BASE + _PER_WORKER * config.worker_threads + segments + _PER_CACHE * max(0, caches - 1)
    followed = _PER_ORIGIN_CONNECTION * FOLLOWED_MAX if config.use_cache and config.share_fetches else 0
    clients, origins = config.connections_max, _PER_ORIGIN_CONNECTION * config.origin_connections_max
    bodies = config.connections_max + OPEN_MAX * caches
    lingering = LINGERING_MAX
    wanted = fixed + clients + origins + followed + bodies + lingering
    if 0 <= limit < wanted:
        left = limit - fixed
        share = left // _SHARES
        if share < _PER_ORIGIN_CONNECTION:
            least = fixed + _SHARES * _PER_ORIGIN_CONNECTION
            raise StartupError(
                f"the limit of {limit} descriptors is too low for {config.worker_threads} threads and {segments}"
                f" segments, which need {least} at least: raise it (LimitNOFILE, ulimit -n), or use fewer"
            )
        lingering, origins, bodies = min(lingering, share), min(origins, 2 * share), min(bodies, 2 * share)
        followed = min(followed, share // 2)
        clients = min(clients, left - lingering - origins - followed - bodies)
    return DescriptorPlan(
        limit=limit,
        wanted=wanted,
        connections_max=clients,
        origin_connections_max=origins // _PER_ORIGIN_CONNECTION,
        followed_max=followed // _PER_ORIGIN_CONNECTION,
        body_files=bodies,
        lingering_max=lingering,
        caches=caches,
    )
