"""Recovery of a DirectoryStore at startup: makes index and files agree, however the last process died.

A body is valid if it has a row, a file of exactly the row's size, and no newer body of the same key. Everything else is
removed: unfinished bodies, files without a row, rows without a file, and the least recently used beyond the budget.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simplecached.stores.directory_index import DirectoryIndex
    from simplecached.stores.directory_layout import DirectoryLayout
    from simplecached.stores.record import Record

log = logging.getLogger(__name__)


def records_to_keep(
    records: Sequence[Record],
    sizes: Mapping[str, int],
    name_of: Callable[[bytes, int], str],
    *,
    budget_bytes: int,
    entries_max: int,
) -> list[Record]:
    """Return the valid records, given the sizes of the existing files, in their order."""
    newest: dict[bytes, int] = {}
    for record in records:
        newest[record.key] = max(record.version, newest.get(record.key, 0))
    kept: list[Record] = []
    room_bytes = budget_bytes
    for record in reversed(records):
        is_whole = sizes.get(name_of(record.key, record.version)) == record.size_bytes
        fits = record.cost_bytes <= room_bytes and len(kept) < entries_max
        if record.version == newest[record.key] and is_whole and fits:
            room_bytes -= record.cost_bytes
            kept.append(record)
    kept.reverse()
    return kept


def recover(layout: DirectoryLayout, index: DirectoryIndex, *, budget_bytes: int, entries_max: int) -> list[Record]:
    """Recover the directory and return its objects, the least recently used first.

    Only under the directory's lock and before the first write; reads all directories. Raises StartupError or
    StoreUnavailable if the directory cannot be changed.
    """
    records = index.take_records()
    unfinished_count = layout.empty_temporary()
    sizes = dict(layout.object_sizes())
    kept = records_to_keep(records, sizes, layout.object_name, budget_bytes=budget_bytes, entries_max=entries_max)
    for record in kept:
        del sizes[layout.object_name(record.key, record.version)]
    layout.remove_objects(sizes)
    valid = set(kept)
    dropped = [record.version for record in records if record not in valid]
    if dropped:
        index.remove(dropped)
    log.info(
        "store recovered",
        extra={
            "directory": layout.directory,
            "objects_kept": len(kept),
            "rows_dropped": len(dropped),
            "files_removed": len(sizes),
            "unfinished_removed": unfinished_count,
        },
    )
    return kept
