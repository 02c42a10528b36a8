"""PURE: the names of all our OS objects, made and parsed in this one place.

/gf-<pid>-<nonce>-<index>          a segment of the pool `<pid>-<nonce>`            (shared memory)
gf-<pid>-<nonce>.guard             the guard of that pool                           (lock file beside the segments)
/cache_request_q                   a command queue, named by its user               (message queue)
gf-queue-cache_request_q.guard     the guard of that queue
/gf-hot-table-cache_request_q      the hot table of the cache on that queue         (shared memory)
/gf-entry-<role>.<name>            what a process announces of itself               (shared memory)
gf-registry-<role>.<name>.guard    the guard of that entry                          (lock file beside it)
/gf-stats-<pid>-<nonce>-<index>    a stats page of the set `gf-stats-<pid>-<nonce>` (shared memory)
gf-stats-<pid>-<nonce>.guard       the guard of that set
"""

from __future__ import annotations

import re
from functools import lru_cache

from shmchannel.errors import UsageError

SHM_DIRECTORY = "/dev/shm"  # noqa: S108 - where the kernel keeps the names; not a temporary file
DEFAULT_QUEUE_NAME = "/cache_request_q"

_POOL = r"gf-[1-9][0-9]{0,9}-[0-9a-f]{8}"
_is_pool = re.compile(_POOL).fullmatch
_SEGMENT = re.compile(rf"/(?P<pool>{_POOL})-(0|[1-9][0-9]{{0,18}})")
_POOL_GUARD = re.compile(rf"(?P<pool>{_POOL})\.guard")
_STATS_SET = r"gf-stats-[1-9][0-9]{0,9}-[0-9a-f]{8}"
_STATS_PAGE = re.compile(rf"/(?P<set>{_STATS_SET})-(0|[1-9][0-9]{{0,18}})")
_STATS_GUARD = re.compile(rf"(?P<set>{_STATS_SET})\.guard")
_QUEUE = re.compile(r"/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_HOT_TABLE = re.compile(r"/gf-hot-table-(?P<queue>[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})")
_MEMBER = r"(?P<role>[a-z][a-z0-9-]{0,31})\.(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})"
_ENTRY = re.compile(rf"/gf-entry-{_MEMBER}")
_ENTRY_GUARD = re.compile(rf"gf-registry-{_MEMBER}\.guard")
_QUEUE_GUARD = re.compile(r"gf-queue-(?P<queue>[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})\.guard")


def pool_name(pid: int, nonce: str) -> str:
    """The prefix of the names of a pool's segments and guard."""
    return f"gf-{pid}-{nonce}"


def pool_word(pool: str) -> int:
    """The name of a pool as one 64-bit word: the pid, of which Linux has 22 bits, in its upper half, then the nonce."""
    _, pid, nonce = pool.split("-")
    return (int(pid) << 32 | int(nonce, 16)) & 0xFFFF_FFFF_FFFF_FFFF


@lru_cache(maxsize=64)
def pool_of_word(word: int) -> str | None:
    """The pool that pool_word() made the word of; None if it is of none."""
    pool = pool_name(word >> 32, f"{word & 0xFFFF_FFFF:08x}")
    return pool if _is_pool(pool) else None


def segment_name(pool: str, index: int) -> str:
    """The name of segment `index` of `pool`, with the leading slash of shared-memory names."""
    return f"/{pool}-{index}"


@lru_cache(maxsize=256)
def parse_segment_name(name: str) -> str | None:
    """The pool that a segment belongs to; None if it is not a segment's name."""
    match = _SEGMENT.fullmatch(name)
    return match["pool"] if match else None


def pool_guard_path(pool: str) -> str:
    """The path of the guard of `pool`."""
    return f"{SHM_DIRECTORY}/{pool}.guard"


def parse_pool_guard(file_name: str) -> str | None:
    """The pool that a guard's file name belongs to; None if it is not a pool's guard."""
    match = _POOL_GUARD.fullmatch(file_name)
    return match["pool"] if match else None


def queue_guard_path(queue_name: str) -> str:
    """The path of the guard of the command queue."""
    return f"{SHM_DIRECTORY}/gf-queue-{checked_queue_name(queue_name)[1:]}.guard"


def parse_queue_guard(file_name: str) -> str | None:
    """The queue name (with slash) that a guard's file name belongs to; None if it is not a queue's guard."""
    match = _QUEUE_GUARD.fullmatch(file_name)
    return f"/{match['queue']}" if match else None


def hot_table_name(queue_name: str) -> str:
    """The name of the hot table of the cache on this queue, with the leading slash of shared-memory names."""
    return f"/gf-hot-table-{checked_queue_name(queue_name)[1:]}"


def parse_hot_table_name(name: str) -> str | None:
    """The queue name (with slash) that a hot table belongs to; None if it is not a hot table's name."""
    match = _HOT_TABLE.fullmatch(name)
    return f"/{match['queue']}" if match else None


def entry_name(role: str, name: str) -> str:
    """The name of a registry entry, with the leading slash of shared-memory names.

    Raises:
        UsageError: the role is not a lower-case word of at most 32 letters, digits and `-`, or the name is not 1 to
            200 letters, digits, `_`, `.` or `-`.
    """
    entry = f"/gf-entry-{role}.{name}"
    if parse_entry_name(entry) != (role, name):
        raise UsageError(
            f"role {role!r} with name {name!r} is not valid",
            hint="a role has 1 to 32 of a-z, 0-9 and '-', a name 1 to 200 letters, digits, '_', '.' or '-'",
        )
    return entry


def parse_entry_name(name: str) -> tuple[str, str] | None:
    """The role and name that a registry entry belongs to; None if it is not an entry's name."""
    match = _ENTRY.fullmatch(name)
    return (match["role"], match["name"]) if match else None


def entry_guard_path(role: str, name: str) -> str:
    """The path of the guard of a registry entry; errors as entry_name()."""
    return f"{SHM_DIRECTORY}/{entry_name(role, name).replace('/gf-entry-', 'gf-registry-', 1)}.guard"


def parse_entry_guard(file_name: str) -> tuple[str, str] | None:
    """The role and name that a guard's file name belongs to; None if it is not the guard of a registry entry."""
    match = _ENTRY_GUARD.fullmatch(file_name)
    return (match["role"], match["name"]) if match else None


def stats_set_name(pid: int, nonce: str) -> str:
    """The prefix of the names of the stats pages of one owner, and of their guard."""
    return f"gf-stats-{pid}-{nonce}"


def stats_page_name(set_name: str, index: int) -> str:
    """The name of page `index` of a set, with the leading slash of shared-memory names."""
    return f"/{set_name}-{index}"


def parse_stats_page_name(name: str) -> str | None:
    """The set that a stats page belongs to; None if it is not a stats page's name."""
    match = _STATS_PAGE.fullmatch(name)
    return match["set"] if match else None


def stats_guard_path(set_name: str) -> str:
    """The path of the guard of a set of stats pages."""
    return f"{SHM_DIRECTORY}/{set_name}.guard"


def parse_stats_guard(file_name: str) -> str | None:
    """The set that a guard's file name belongs to; None if it is not the guard of stats pages."""
    match = _STATS_GUARD.fullmatch(file_name)
    return match["set"] if match else None


def checked_queue_name(name: str) -> str:
    """Return `name` if it is a valid name of a message queue.

    Raises:
        UsageError: it is not `/` followed by 1 to 200 letters, digits, `_`, `.` or `-`.
    """
    if not _QUEUE.fullmatch(name):
        raise UsageError(
            f"queue name {name!r} is not valid", hint="write '/' followed by 1 to 200 letters, digits, '_', '.' or '-'"
        )
    return name


def pid_of_pool(pool: str) -> int:
    """The pid in the name of a pool, or of a set of stats pages."""
    return int(pool.split("-")[-2])
