"""Composition root and life cycle of the cache daemon: the only place that builds its objects."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict

from shmchannel import reaper
from shmchannel.attachments import AttachmentTable
from shmchannel.command_queue import CommandQueue
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.limits import raise_file_limit
from shmchannel.daemonkit.readiness import READY, STOPPING, notify
from shmchannel.daemonkit.signals import SignalTrap, ending_signals, insist
from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline
from shmchannel.errors import ResourceError
from shmchannel.server import ChannelServer
from shmchannel.shelf_publisher import ShelfPublisher, is_supported
from shmchannel.workers import WorkerPool
from simplecached.config import MEMORY, CacheConfig
from simplecached.descriptors import LIMIT_ENOUGH, DescriptorPlan, Descriptors, plan_descriptors
from simplecached.directory_store import DirectoryStore
from simplecached.handler import CacheHandler
from simplecached.hot_objects import FILE_SECONDS, STORED_SECONDS, HotObjects
from simplecached.memory_store import MemoryStore
from simplecached.static import open_static
from simplecached.store import ObjectStore

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0


def run(config: CacheConfig) -> int:
    """Serve until a signal asks to end; returns the exit code.

    Raises:
        NameTaken: another cache lives on the queue name.
        ResourceError, SimpleCachedError: something needed at the start is not to be had; nothing is left behind.
    """
    plan = _plan_descriptors(config, raise_file_limit().after)
    descriptors = Descriptors()
    with ExitStack() as resources:
        signals = resources.enter_context(SignalTrap(*ending_signals()))
        queue = CommandQueue.create(config.queue_name)
        resources.callback(queue.close)
        swept = reaper.sweep()
        static = None
        if config.content is not None:
            static = open_static(config.content, plan.static_files_max, descriptors=descriptors)
            resources.callback(static.close)
        store = _open_store(config, plan, descriptors)
        resources.callback(store.close)
        shelf = _open_shelf(config, plan)
        hot = None
        if shelf is not None:
            resources.callback(shelf.close)
            hot = HotObjects(shelf, STORED_SECONDS if static is None else FILE_SECONDS)
        handler = CacheHandler(
            static,
            store,
            lookup_delay_s=config.lookup_delay_us / 1e6,
            stall_s=config.stall_s,
            hot=hot,
            paused_max=plan.paused_max,
        )
        resources.callback(handler.close)
        puts_at_once = max(1, config.worker_threads // 2)
        attachments = AttachmentTable(plan.segments_max, descriptors.free)
        server = ChannelServer(
            queue, handler, stall_s=config.stall_s, puts_at_once=puts_at_once, attachments=attachments
        )
        resources.callback(server.close)
        workers = _make_workers(config.worker_threads, queue, server)
        workers.start()
        queue.set_ready()
        notify(READY)
        log.info(
            "ready",
            extra={
                "queue": config.queue_name,
                "threads": config.worker_threads,
                "content": config.content,
                "objects_max": plan.objects_max,
                "shelf_cells": shelf.cell_count if shelf is not None else 0,
                "swept": len(swept),
            },
        )
        while not signals.wait(HOUSEKEEPING_SECONDS):
            server.sweep()
            handler.expire()
        return _stop(config, signals, queue, handler, server, workers)


def _make_workers(count: int, queue: CommandQueue, server: ChannelServer) -> WorkerPool:
    def step(index: int) -> None:
        pool.idle[index] = True
        message = server.receive(PEER_CHECK_SECONDS)
        if message is not None:
            pool.idle[index] = False
            server.serve(message)

    pool = WorkerPool("cache-worker", count, step, wake=queue.wake)
    return pool


def _plan_descriptors(config: CacheConfig, limit: int) -> DescriptorPlan:
    plan = plan_descriptors(
        limit,
        worker_threads=config.worker_threads,
        has_static=config.content is not None,
        in_memory=config.store == MEMORY,
    )
    if plan.is_short:
        remedy = f"raise ulimit -n to {LIMIT_ENOUGH} or more, or use fewer threads"
        log.warning("few descriptors", extra={**asdict(plan), "remedy": remedy})
    return plan


def _open_store(config: CacheConfig, plan: DescriptorPlan, descriptors: Descriptors) -> ObjectStore:
    if config.store == MEMORY:
        return MemoryStore(config.store_bytes, plan.objects_max, descriptors)
    return DirectoryStore(
        config.store, config.store_bytes, open_files_max=plan.store_files_max, descriptors=descriptors
    )


def _open_shelf(config: CacheConfig, plan: DescriptorPlan) -> ShelfPublisher | None:
    """The hot shelf, or None: all that it holds can be had by commands as well. A lookup delay is to be felt."""
    if not config.shelf_bytes or config.lookup_delay_us or not is_supported():
        return None
    try:
        return ShelfPublisher.create(config.queue_name, config.shelf_bytes, plan.shelf_files_max)
    except ResourceError as error:
        log.warning("no hot shelf", extra={"reason": str(error)})
        return None


def _stop(
    config: CacheConfig,
    signals: SignalTrap,
    queue: CommandQueue,
    handler: CacheHandler,
    server: ChannelServer,
    workers: WorkerPool,
) -> int:
    notify(STOPPING)
    queue.set_stopping()
    handler.stop_delaying()
    deadline = Deadline.after(config.drain_s)
    interrupted = False

    def second_signal(wait_s: float = 0.0) -> bool:
        nonlocal interrupted
        interrupted = interrupted or insist(signals.wait(wait_s))
        return interrupted

    while queue.waiting and not deadline.expired and not second_signal(deadline.slice(0.02)):
        pass  # workers empty the queue
    workers.request_stop()
    stuck = workers.join(deadline, interrupted=second_signal)
    stats = server.stats()
    shelf = handler.shelf_stats()
    log.info(
        "stopped",
        extra={
            "served": stats.served_total,
            "chunks": stats.chunks_total,
            "malformed": stats.malformed_total,
            "expired": stats.expired_total,
            "broken": stats.broken_total,
            "shelved": shelf.published_total,
            "unshelved": shelf.dropped_total,
            "unfinished": stuck,
        },
    )
    return int(ExitCode.INTERRUPTED if stuck else ExitCode.OK)
