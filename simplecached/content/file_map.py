"""Parser of file maps: one ``<key> <path>`` per line. Whether the files exist is checked by the caller."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from simplecached.errors import FileMapError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY_BYTES_MAX = 4096


class MapLine(NamedTuple):
    """One line that names a file; ``number`` counts from 1."""

    number: int
    key: bytes
    path: bytes


def parse_file_map(content: bytes, map_path: str) -> Iterator[MapLine]:
    """Yield the lines of a file map, with relative paths resolved against the map's directory.

    Key and path are separated by white space, the path is the rest of the line, blank lines are ignored, and the last
    line needs no newline. Raises FileMapError for a line that is malformed or repeats a key.
    """
    folder = os.path.dirname(os.fsencode(map_path))
    first_seen: dict[bytes, int] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        fields = line.strip().split(maxsplit=1)
        if not fields:
            continue
        shown = os.fsdecode(line.strip())
        if len(fields) != 2 or b"\0" in line:
            raise FileMapError(map_path, number, "malformed line", shown, hint="write <key> <path> on each line")
        key, path = fields
        if not key.startswith(b"/"):
            raise FileMapError(map_path, number, "the key does not begin with /", shown)
        if len(key) > KEY_BYTES_MAX:
            raise FileMapError(map_path, number, f"the key is longer than {KEY_BYTES_MAX} bytes", shown)
        if key in first_seen:
            raise FileMapError(map_path, number, f"the key is on line {first_seen[key]} already", os.fsdecode(key))
        first_seen[key] = number
        yield MapLine(number, key, os.path.join(folder, path))
