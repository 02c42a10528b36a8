"""Recovery of a DirectoryStore at startup: makes index and files agree, however the last process died.

A body is valid if it has a row, a file of exactly the row's size, and no newer body of the same key. Everything else is
removed: unfinished bodies, files without a row, rows without a file, and the least recently used beyond the budget.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simplecached.stores.directory_index import DirectoryIndex, IndexRow
    from simplecached.stores.directory_layout import DirectoryLayout

log = logging.getLogger(__name__)


def rows_to_keep(
    rows: Sequence[IndexRow],
    sizes: Mapping[str, int],
    name_of: Callable[[bytes, int], str],
    *,
    budget_bytes: int,
    entries_max: int,
) -> list[IndexRow]:
    """Return the valid rows, given the sizes of the existing files, in the order of the rows."""
    newest: dict[bytes, int] = {}
    for row in rows:
        newest[row.entry.key] = max(row.entry.version, newest.get(row.entry.key, 0))
    kept: list[IndexRow] = []
    room_bytes = budget_bytes
    for row in reversed(rows):
        entry = row.entry
        if entry.version != newest[entry.key] or sizes.get(name_of(entry.key, entry.version)) != entry.size_bytes:
            continue
        if entry.cost_bytes <= room_bytes and len(kept) < entries_max:
            room_bytes -= entry.cost_bytes
            kept.append(row)
    kept.reverse()
    return kept


def recover(layout: DirectoryLayout, index: DirectoryIndex, *, budget_bytes: int, entries_max: int) -> list[IndexRow]:
    """Recover the directory and return its objects, the least recently used first.

    Only under the directory's lock and before the first write; reads all directories. Raises StartupError or
    StoreUnavailable if the directory cannot be changed.
    """
    rows = index.take_rows()
    unfinished_count = layout.empty_temporary()
    sizes = dict(layout.object_sizes())
    kept = rows_to_keep(rows, sizes, layout.object_name, budget_bytes=budget_bytes, entries_max=entries_max)
    kept_versions = {row.entry.version for row in kept}
    for row in kept:
        del sizes[layout.object_name(row.entry.key, row.entry.version)]
    layout.remove_objects(sizes)
    dropped = [row.entry.version for row in rows if row.entry.version not in kept_versions]
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
