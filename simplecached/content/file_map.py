"""File maps: one ``<key> <path>`` per line, each naming a regular file that can be read."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from simplecached.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simplecached.descriptors import Descriptors

KEY_BYTES_MAX = 4096


def load_file_map(map_path: str, descriptors: Descriptors) -> dict[bytes, bytes]:
    """Read a file map and check every file it names; raises ConfigError, mostly with the number of the line."""
    try:
        with open(map_path, "rb", opener=lambda path, flags: descriptors.open(lambda: os.open(path, flags))) as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read the file map {map_path}: {error.strerror}") from error
    paths: dict[bytes, bytes] = {}
    for number, key, path in parse_file_map(content, map_path):
        try:
            facts = os.stat(path)
        except OSError as error:
            problem = "missing file" if error.errno in {errno.ENOENT, errno.ENOTDIR} else str(error.strerror)
            raise _refused(map_path, number, problem, path) from error
        if not stat.S_ISREG(facts.st_mode):
            raise _refused(map_path, number, "not a regular file", path)
        if not os.access(path, os.R_OK):
            raise _refused(map_path, number, "no permission to read", path)
        paths[key] = path
    return paths


def parse_file_map(content: bytes, map_path: str) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number (from 1), key and path of each line; relative paths are resolved against the map's directory.

    Key and path are separated by white space, the path is the rest of the line, blank lines are ignored, and the last
    line needs no newline. Raises ConfigError for a line that is malformed or repeats a key.
    """
    folder = os.path.dirname(os.fsencode(map_path))
    first_seen: dict[bytes, int] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        fields = line.strip().split(maxsplit=1)
        if not fields:
            continue
        if len(fields) != 2 or b"\0" in line:
            raise _refused(map_path, number, "malformed line", line.strip(), hint="write <key> <path> on each line")
        key, path = fields
        if not key.startswith(b"/"):
            raise _refused(map_path, number, "the key does not begin with /", line.strip())
        if len(key) > KEY_BYTES_MAX:
            raise _refused(map_path, number, f"the key is longer than {KEY_BYTES_MAX} bytes", line.strip())
        if key in first_seen:
            raise _refused(map_path, number, f"the key is on line {first_seen[key]} already", key)
        first_seen[key] = number
        yield number, key, os.path.join(folder, path)


def _refused(map_path: str, number: int, problem: str, subject: bytes, *, hint: str = "") -> ConfigError:
    return ConfigError(f"{map_path}, line {number}: {problem}: {os.fsdecode(subject)}", hint=hint)
