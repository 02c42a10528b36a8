"""Recovery of a DirectoryStore, behind: makes index and files agree, however earlier processes died.

Nothing depends on it. A row whose file is missing, or has another size, is found when the file is opened, and a file
without a row is never opened. So it may take its time beside the serving of objects, and an interrupted one begins
again at the next start. It looks only at what earlier processes left, which have lower versions.

Files without a row are removed, folder by folder. If there were fewer files than rows, every row is looked at.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simplecached.stores.directory_index import DirectoryIndex
    from simplecached.stores.directory_layout import DirectoryLayout
    from simplecached.stores.directory_rows import Row

log = logging.getLogger(__name__)

_AT_ONCE = 256


def recover(
    layout: DirectoryLayout,
    index: DirectoryIndex,
    *,
    version_max: int,
    unfinished_count: int,
    drop: Callable[[list[Row]], None],
) -> Iterator[None]:
    """Do a piece of the recovery at each step; `drop` removes rows whose files are missing.

    Raises StartupError or StoreUnavailable if the directory or the index cannot be read.
    """
    rows_at_start = index.objects_count
    matched_count = removed_count = dropped_count = 0
    for shard in layout.shards():
        names = [(name, version) for name, version in layout.names_in(shard) if version <= version_max]
        for at in range(0, len(names), _AT_ONCE):
            some = names[at : at + _AT_ONCE]
            known = index.known([version for _, version in some])
            unknown = [name for name, version in some if version not in known]
            matched_count += len(some) - len(unknown)
            removed_count += layout.remove_objects(unknown)
            yield
    if matched_count < rows_at_start:
        version = 0
        while rows := index.after_version(version, _AT_ONCE):
            version = rows[-1].version
            missing = [row for row in rows if row.version <= version_max and not layout.has_object(row)]
            if missing:
                drop(missing)
                dropped_count += len(missing)
            yield
    log.info(
        "store recovered",
        extra={
            "directory": layout.directory,
            "objects_kept": matched_count,
            "rows_dropped": dropped_count,
            "files_removed": removed_count,
            "unfinished_removed": unfinished_count,
        },
    )
