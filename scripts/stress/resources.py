"""What both daemons of a rig hold at a moment: memory, threads, descriptors by what they are, names, files."""

import os
from contextlib import suppress
from dataclasses import dataclass

import psutil

from scripts.stress.rig import Rig, own_memory_kib
from shmchannel.process.naming import SHM_DIRECTORY
from shmchannel.tools.leaks import leaks_of

_KIB_PER_MB = 1000 / 1.024
_DELETED = " (deleted)"
_MEMORY_FILE = "/memfd:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one daemon holds. Memory in MB (10^6 bytes); the descriptors of all kinds make `descriptors`."""

    rss_mb: float
    pss_mb: float
    own_mb: float
    """Neither shared nor of files: RssAnon."""
    shared_mb: float
    """Mapped shared memory that it has touched: RssShmem."""
    threads: int
    descriptors: int
    clients: int
    """Connections of clients."""
    origins: int
    """Connections to origins, idle ones included."""
    objects: int
    """Descriptors of stored objects: memory files, or files in the directory of the store."""
    unlinked: int
    """Descriptors of files without a name: spools, and stored objects that were evicted or replaced."""
    segments: int
    """Mapped blocks of shared memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a pair holds, so many seconds after the start, when its load pauses."""

    at_s: float
    requests: int
    """So many had been made."""
    cache: Held
    proxy: Held
    names: int
    """Of shared memory and locks, of both daemons."""
    queues: int
    stored_files: int
    """Files below the directory of the store."""


def sample(rig: Rig, store: str | None, at_s: float, requests: int) -> Sample:
    """Look at both daemons of a rig. Raises psutil.Error or OSError if one is gone."""
    names = leaks_of([rig.cache.pid, rig.proxy.pid], rig.queue_name)
    queues = [found for found in names if found.kind == "queue"]
    return Sample(
        at_s=at_s,
        requests=requests,
        cache=_held(rig.cache.pid, store, rig.port),
        proxy=_held(rig.proxy.pid, store, rig.port),
        names=len(names) - len(queues),
        queues=len(queues),
        stored_files=0 if store is None else sum(len(files) for _, _, files in os.walk(store)),
    )


def _held(pid: int, store: str | None, port: int) -> Held:
    process = psutil.Process(pid)
    links = _links(pid)
    objects = [link for link in links if link.startswith(_MEMORY_FILE) or _is_below(link, store)]
    unlinked = [link for link in links if link.endswith(_DELETED) and not link.startswith(_MEMORY_FILE)]
    connections = [each for each in process.net_connections("tcp") if each.raddr]
    clients = [each for each in connections if each.laddr.port == port]
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
        segments = sum(f" {SHM_DIRECTORY}/" in line for line in lines)
    return Held(
        rss_mb=process.memory_info().rss / 1e6,
        pss_mb=process.memory_full_info().pss / 1e6,
        own_mb=own_memory_kib(pid) / _KIB_PER_MB,
        shared_mb=_shared_mb(pid),
        threads=process.num_threads(),
        descriptors=len(links),
        clients=len(clients),
        origins=len(connections) - len(clients),
        objects=len(objects),
        unlinked=len(unlinked),
        segments=segments,
    )


def _shared_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        return float(next(line.split()[1] for line in lines if line.startswith("RssShmem"))) / _KIB_PER_MB


def _is_below(link: str, store: str | None) -> bool:
    return store is not None and link.startswith(f"{store}/") and not link.endswith(_DELETED)


def _links(pid: int) -> list[str]:
    """What its descriptors lead to."""
    links = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return links
