"""Composition root of the cache daemon: the only place that builds its objects, and their life cycle."""

from __future__ import annotations

import logging
import resource
from contextlib import ExitStack
from dataclasses import asdict

from shmchannel.daemonkit.daemon import Drain, Settings
from shmchannel.daemonkit.logs import about
from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.signals import Wish
from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline
from shmchannel.errors import ResourceError, ShmChannelError
from shmchannel.messages.posix_queue import CommandQueue
from shmchannel.objects.hot_table_writer import HotTableWriter, is_supported, require_room, taken_at_first
from shmchannel.objects.server import ChannelServer
from shmchannel.process import reaper
from shmchannel.process.memory import available_memory, require_memory
from shmchannel.registry import Presence
from shmchannel.stats_pages import own_page
from shmchannel.streams.attachments import AttachmentTable
from shmchannel.workers import WorkerPool
from simplecached.content.static import StaticSource, open_static
from simplecached.daemon.config import MEMORY, CacheConfig
from simplecached.daemon.reload import needing_restart, taken_over
from simplecached.descriptors import LIMIT_ENOUGH, DescriptorPlan, Descriptors, plan_descriptors
from simplecached.errors import SimpleCachedError
from simplecached.serving.handler import CacheHandler
from simplecached.serving.hot_table import FILE_SECONDS, HotObjects
from simplecached.stores.directory_store import DirectoryStore
from simplecached.stores.lru_store import LruStore
from simplecached.stores.memory_store import MemoryStore
from simplecached.telemetry.cache_stats import CacheStats
from simplecached.telemetry.metrics import ROLE, SCHEMA

log = logging.getLogger(__name__)

_STORE_BYTES = 1 << 30
_REMEDY = f"raise ulimit -n to {LIMIT_ENOUGH} or more, or use fewer threads"
"""The budget of the store unless the operator chooses another."""


class CacheService:
    """The daemon's objects, built in order; `resources` releases them in reverse. No thread runs before start().

    Raises:
        NameTaken: another cache serves this queue name.
        ResourceError, SimpleCachedError: a resource needed at the start is not available.
    """

    def __init__(self, config: CacheConfig, resources: ExitStack) -> None:
        self._config = config
        self._plan = plan = _plan_descriptors(config)
        self._descriptors = descriptors = Descriptors()
        self._queue = queue = CommandQueue.create(config.queue_name)
        resources.callback(queue.close)
        self._swept = len(reaper.sweep())
        store_bytes = _store_bytes(config)
        self._stats = stats = CacheStats(own_page(ROLE, config.queue_name, SCHEMA, resources))
        static = None
        if config.content is not None:
            static = open_static(config.content, plan.static_files_max, descriptors=descriptors)
        self._statics: list[StaticSource | None] = [static]
        """The one in use is the last."""
        resources.callback(self._close_statics)
        self._store = store = _open_store(config, store_bytes, plan, descriptors)
        resources.callback(store.close)
        self._hot_table = hot_table = _open_hot_table(config)
        hot = None
        if hot_table is not None:
            resources.callback(hot_table.close)
            hot = HotObjects(hot_table, store, None if static is None else FILE_SECONDS)
        self._handler = CacheHandler(
            static,
            store,
            lookup_delay_s=config.lookup_delay_us / 1e6,
            between_bytes_timeout_s=config.between_bytes_timeout_s,
            hot=hot,
            paused_max=plan.paused_max,
        )
        resources.callback(self._handler.close)
        self._server = ChannelServer(
            queue,
            self._handler,
            between_bytes_timeout_s=config.between_bytes_timeout_s,
            puts_at_once=max(1, config.worker_threads // 2),
            attachments=AttachmentTable(plan.segments_max, descriptors.free),
            on_end=stats.ended,
            about=about,
        )
        resources.callback(self._server.close)
        self._workers = WorkerPool("cache-worker", config.worker_threads, self._step, wake=queue.wake)
        self._presence = Presence("cache", config.queue_name[1:], queue_name=config.queue_name)
        resources.callback(self._presence.close)

    def _close_statics(self, *, but_last: bool = False) -> None:
        in_use = self._statics[-1:] if but_last else []
        for static in self._statics[: len(self._statics) - len(in_use)]:
            if static is not None:
                static.close()
        self._statics = in_use

    def _step(self, index: int) -> None:
        idle = self._workers.idle
        idle[index] = True
        message = self._queue.receive(PEER_CHECK_SECONDS)
        if message is not None:
            idle[index] = False
            self._server.serve(message)

    def start(self) -> None:
        """Start serving commands; proxies may open the queue from now on."""
        cells = self._hot_table.cell_count if self._hot_table is not None else 0
        self._stats.set_sizes(threads=self._config.worker_threads, hot_table_cells=cells)
        self._sample()
        self._workers.start()
        self._queue.set_ready()
        config = self._config
        self._presence.announce(facts={"store": config.store})
        log.info(
            "ready",
            extra={
                "queue": config.queue_name,
                "threads": config.worker_threads,
                "content": config.content,
                "objects_max": self._plan.objects_max,
                "hot_table_cells": cells,
                "swept": self._swept,
            },
        )

    def housekeep(self) -> None:
        """Drop what has expired: segments of proxies that ended, paused transfers. And say that this process lives."""
        self._presence.beat(self._queue.waiting + sum(not idle for idle in self._workers.idle))
        self._server.sweep()
        self._handler.expire()
        self._close_statics(but_last=True)
        self._sample()
        self._stats.beat()

    def _sample(self) -> None:
        self._stats.sample(
            self._server.stats(),
            self._store.stats(),
            self._hot_table.stats() if self._hot_table is not None else None,
            waiting=self._queue.waiting,
            busy=sum(not idle for idle in self._workers.idle),
        )

    def stop_accepting(self) -> None:
        """Tell proxies to send nothing new; commands on the queue are still served, without the lookup delay."""
        self._presence.set_stopping()
        self._queue.set_stopping()
        self._handler.stop_delaying()

    def is_busy(self) -> bool:
        """Whether commands are waiting on the queue."""
        return self._queue.waiting > 0

    def hear(self, wish: Wish, settings: Settings[CacheConfig]) -> None:
        """Take over changed settings as far as that is possible while it runs; there is no log file to reopen."""
        if wish is not Wish.RELOAD:
            log.debug("wish not known", extra={"wish": wish.value})
            return
        try:
            wanted = settings.again()
            self._take_over(wanted)
        except (SettingError, SimpleCachedError, ShmChannelError) as error:
            log.error("reload refused", extra={"reason": str(error)})
            return
        settings.log_as(wanted)
        log.info("reloaded", extra={"needs_restart": needing_restart(self._config, wanted)})

    def _take_over(self, wanted: CacheConfig) -> None:
        """Change nothing, or all of it.

        Raises:
            SimpleCachedError, ShmChannelError: the content cannot be served, or the memory is not there.
        """
        config = taken_over(self._config, wanted)
        store_bytes = self._store.stats().budget_bytes
        if config.store_bytes != self._config.store_bytes:
            store_bytes = _store_bytes(config)
        if config.content != self._config.content:
            files_max = _plan_of(config).static_files_max
            static = None
            if config.content is not None:
                static = open_static(config.content, files_max, descriptors=self._descriptors)
            self._handler.set_static(static, None if static is None else FILE_SECONDS)
            self._statics.append(static)  # the former one is closed when no lookup can be in it any longer
        evicted = self._store.set_budget(store_bytes)
        if evicted:
            log.info("objects evicted for a smaller budget", extra={"objects": evicted, "store_bytes": store_bytes})
        self._config = config

    def is_replaced(self, settings: Settings[CacheConfig]) -> bool:
        """No other cache can serve the same queue."""
        del settings
        return False

    def is_supervised(self) -> bool:
        """A cache is one process."""
        return False

    def hurry(self) -> None:
        """Never called: it is never replaced."""

    def finish(self, drain: Drain) -> int:
        """End the workers; returns how many are still in a transfer."""
        self._workers.request_stop()
        stuck = self._workers.join(Deadline(drain.expires_ns), interrupted=drain.interrupted)
        self._sample()
        stats = self._server.stats()
        hot_table = self._hot_table.stats() if self._hot_table is not None else None
        store = self._store.stats()
        log.info(
            "stopped",
            extra={
                "served": stats.served_total,
                "chunks": stats.chunks_total,
                "malformed": stats.malformed_total,
                "expired": stats.expired_total,
                "broken": stats.broken_total,
                "failed": stats.failed_total,
                "objects": store.objects_count,
                "hits": store.hits_total,
                "misses": store.misses_total,
                "stored": store.stored_total,
                "refused": store.refused_total,
                "evicted": store.evicted_total,
                "removed": store.removed_total,
                "hot_table_published": hot_table.published_total if hot_table is not None else 0,
                "hot_table_dropped": hot_table.dropped_total if hot_table is not None else 0,
                "unfinished": stuck,
            },
        )
        return stuck


def shortages(config: CacheConfig) -> list[str]:
    """What the limits of this process make of the settings, a line for each."""
    plan = _plan_of(config)
    if not plan.is_short:
        return []
    return [f"the limit of {plan.limit} descriptors leaves parts of the cache fewer than they could use: {_REMEDY}"]


def _plan_of(config: CacheConfig) -> DescriptorPlan:
    return plan_descriptors(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        worker_threads=config.worker_threads,
        has_static=config.content is not None,
        in_memory=config.store == MEMORY,
    )


def _plan_descriptors(config: CacheConfig) -> DescriptorPlan:
    plan = _plan_of(config)
    if plan.is_short:
        log.warning("few descriptors", extra={**asdict(plan), "remedy": _REMEDY})
    return plan


def _store_bytes(config: CacheConfig) -> int:
    """The budget of the store; after the sweep, which may have freed some of the memory.

    The default shrinks to half of the memory available. Raises LimitReached if the hot table, or the memory store of a
    budget that was chosen, needs more than the machine has.
    """
    hot_table_bytes = config.hot_table_bytes if _has_hot_table(config) else 0
    if hot_table_bytes:
        require_room(hot_table_bytes)
    in_memory = config.store == MEMORY
    if config.store_bytes is None:
        available_bytes = available_memory() if in_memory else None
        if available_bytes is None or available_bytes >= 2 * _STORE_BYTES:
            return _STORE_BYTES
        store_bytes = available_bytes // 2
        numbers = {"store_bytes": store_bytes, "available_bytes": available_bytes, "default_bytes": _STORE_BYTES}
        log.warning("memory store smaller than by default", extra=numbers)
        return store_bytes
    if in_memory:
        require_memory(
            "the memory store with the hot table",
            config.store_bytes + (taken_at_first(hot_table_bytes) if hot_table_bytes else 0),
            hint="take a smaller budget (--store-bytes), or a store on disk (--store DIR)",
            shared=False,
        )
    return config.store_bytes


def _has_hot_table(config: CacheConfig) -> bool:
    """All that it holds can be had by commands as well; a lookup delay is to be felt."""
    return bool(config.hot_table_bytes) and not config.lookup_delay_us and is_supported()


def _open_store(config: CacheConfig, store_bytes: int, plan: DescriptorPlan, descriptors: Descriptors) -> LruStore:
    if config.store == MEMORY:
        return MemoryStore(store_bytes, plan.objects_max, descriptors)
    return DirectoryStore(config.store, store_bytes, open_files_max=plan.store_files_max, descriptors=descriptors)


def _open_hot_table(config: CacheConfig) -> HotTableWriter | None:
    if not _has_hot_table(config):
        return None
    try:
        return HotTableWriter.create(config.queue_name, config.hot_table_bytes)
    except ResourceError as error:
        log.warning("no hot table", extra={"reason": str(error)})
        return None
